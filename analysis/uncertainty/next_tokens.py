"""What each model expects at one place: both lists of likeliest tokens, joined, and the probability that moved."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.figures.figure import Figure, safe, visible
from analysis.figures.theme import BLUE, INK, ORANGE, SOFT, styled
from analysis.score_registry import significant
from analysis.uncertainty.result import Comparison, ScoredText, same_tokenizer
from analysis.uncertainty.summary import NOTHING_SCORED
from analysis.view import View


def token_names(comparison: Comparison) -> tuple[dict[int, str], dict[int, str]]:
    """The name of each listed token of A and of B; equal names are one token.

    With one tokenizer, tokens are equal by id: where two ids have one text, the name holds the id. Otherwise they are
    equal by text.
    """
    a, b = comparison.a.strings, comparison.b.strings
    if not same_tokenizer(comparison.a, comparison.b):
        return a, b
    every = a | b
    count = Counter(every.values())
    names = {i: f"{text} (id {i})" if count[text] > 1 else text for i, text in every.items()}
    return names, names


def first_tokens(comparison: Comparison, piece: int) -> tuple[int, int]:
    """The first token of each model in a common piece of text. Both predict it from the same text."""
    cells = comparison.cells
    assert cells is not None
    return int(np.argmax(cells.token_cell_a == piece)), int(np.argmax(cells.token_cell_b == piece))


def next_table(comparison: Comparison, piece: int) -> pd.DataFrame:
    """A row for each token that A or B lists: its name and both probabilities, NaN where a model does not list it."""
    columns = []
    for side, names, token in zip(
        (comparison.a, comparison.b), token_names(comparison), first_tokens(comparison, piece), strict=True
    ):
        ids = side.scores.topk_ids[token].tolist()
        values = side.scores.topk_probability[token].astype(np.float64)
        listed = pd.Series(values, index=[names[i] for i in ids])
        columns.append(listed.groupby(level=0, sort=False).sum())
    table = pd.concat(columns, axis=1, keys=["probability_a", "probability_b"])
    return table.rename_axis("token").reset_index()


def least_moved(comparison: Comparison) -> NDArray[np.float64]:
    """[C] the least probability that moved at each piece's first token: a lower bound of the total variation.

    It needs the lists alone. A token that a model does not list has at most the probability of its last listed one, and
    all such tokens together at most what the list leaves over. TV = max over sets S of tokens of |P_A(S) - P_B(S)|, so
    each set gives a bound; the sets are those that A, or B, holds likelier.
    """
    cells = comparison.cells
    assert cells is not None
    known: dict[str, int] = {}
    sides = []
    for side, names, of_token in zip(
        (comparison.a, comparison.b), token_names(comparison), (cells.token_cell_a, cells.token_cell_b), strict=True
    ):
        inside = np.flatnonzero(of_token >= 0)
        first = inside[np.unique(of_token[inside], return_index=True)[1]]  # [C]
        ids, place = np.unique(side.scores.topk_ids[first], return_inverse=True)
        numbers = np.array([known.setdefault(names[i], len(known)) for i in ids.tolist()], dtype=np.int64)
        listed = numbers[place.reshape(-1)].reshape(len(first), -1)
        sides.append((listed, side.scores.topk_probability[first].astype(np.float64)))
    (a, p), (b, q) = sides
    same = a[:, :, None] == b[:, None, :]  # [C, k, k]
    return np.maximum(_gain(same, p, q), _gain(same.transpose(0, 2, 1), q, p))


def _gain(same: NDArray[np.bool_], p: NDArray[np.float64], q: NDArray[np.float64]) -> NDArray[np.float64]:
    """[C] P(S) - Q(S) at least, for the tokens S of the first list that it holds likelier."""
    both = same.any(axis=2)
    other = (same * q[:, None, :]).sum(axis=2)
    most = np.minimum(p, q.min(axis=1, initial=1)[:, None]).sum(axis=1, where=~both)  # of the tokens not listed in Q
    most = np.minimum(most, np.maximum(0, 1 - q.sum(axis=1)))
    gained: NDArray[np.float64] = np.maximum(p - other, 0).sum(axis=1, where=both) + p.sum(axis=1, where=~both) - most
    return gained


def next_tokens(comparison: Comparison, view: View) -> Figure:
    """The likeliest next tokens of both models at the pinned piece of text, as a slope chart."""
    cells = comparison.cells
    assert cells is not None
    if not len(cells):
        table = pd.DataFrame({"token": [], "probability_a": [], "probability_b": []})
        return Figure("next", "Next tokens", NOTHING_SCORED, go.Figure, lambda: table)
    inside = np.flatnonzero((cells.start <= (view.pinned or 0)) & ((view.pinned or 0) < cells.end))
    piece = int(inside[0]) if len(inside) else 0
    table = next_table(comparison, piece)
    if comparison.divergences is None:
        least = significant(float(least_moved(comparison)[piece]))
        moved = f"at least {least} of the probability moved; tokens are joined by text"
    else:
        token = first_tokens(comparison, piece)[0]
        moved = f"{significant(float(comparison.divergences.tv[token]))} of the probability moved (total variation)"
    start, end = int(cells.start[piece]), int(cells.end[piece])
    goes_on = visible(comparison.document.text[start:end])
    k = comparison.a.scores.topk_ids.shape[1]
    return Figure(
        "next",
        "Next tokens",
        f"The {k} likeliest next tokens of each model at character {start}, where the text goes on with {goes_on}; "
        f"{moved}. Dotted: not in the other list, where it can have at most the probability of the last token.",
        lambda: _draw(table, comparison.a, comparison.b, view),
        lambda: table,
    )


def _draw(table: pd.DataFrame, a: ScoredText, b: ScoredText, view: View) -> go.Figure:
    figure = go.Figure()
    values = table[["probability_a", "probability_b"]].to_numpy()
    least = np.nanmin(values, axis=0, initial=1.0)
    for name, pair in zip(table["token"], values, strict=True):
        shown = np.where(np.isnan(pair), np.minimum(least, np.nanmax(pair)), pair)
        color = SOFT if np.isnan(pair).any() else ORANGE if pair[0] >= pair[1] else BLUE
        figure.add_trace(
            go.Scatter(
                x=[0, 1],
                y=shown,
                mode="lines+markers",
                line={"color": color[view.theme], "dash": "dot" if np.isnan(pair).any() else "solid", "width": 1.5},
                marker={"size": 5},
                hovertemplate=f"{safe(name)}: %{{y:.3f}}<extra></extra>",
                showlegend=False,
            )
        )
    top = float(np.nanmax(values, initial=0.01))
    for x, column in enumerate(("probability_a", "probability_b")):
        listed = table.dropna(subset=[column]).sort_values(column, ascending=False)
        for i, (name, p) in enumerate(zip(listed["token"], listed[column], strict=True)):
            place = top * (1 - (i + 0.5) / max(len(listed), 1))  # labels are evenly spaced, and lead to their point
            figure.add_annotation(
                x=x, y=p, ax=x + (0.12 if x else -0.12), ay=place, xref="x", yref="y", axref="x", ayref="y",
                text=f"{safe(name, 24)}  {p:.3f}", xanchor="left" if x else "right", arrowhead=0, arrowwidth=0.6,
                arrowcolor=SOFT[view.theme], font={"color": INK[view.theme], "size": 12},
            )  # fmt: skip
    figure.update_xaxes(
        range=[-0.9, 1.9],
        tickvals=[0, 1],
        ticktext=[f"{letter} {safe(side.facts.name)}" for letter, side in (("A", a), ("B", b))],
        showgrid=False,
    )
    figure.update_yaxes(title="probability", range=[-0.03 * top, 1.05 * top])
    return styled(figure, view.theme, 420)
