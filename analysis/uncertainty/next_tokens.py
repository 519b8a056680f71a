"""What each model expects at one place: both lists of likeliest tokens, joined, and the probability that moved."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.figures.figure import Figure, safe, visible
from analysis.figures.theme import BLUE, INK, ORANGE, SOFT, styled
from analysis.score_registry import significant
from analysis.uncertainty.result import Comparison, ScoredText, same_tokenizer
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
    texts = list(every.values())
    twice = {text for text in texts if texts.count(text) > 1} if len(set(texts)) < len(texts) else set()
    names = {i: f"{text} (id {i})" if text in twice else text for i, text in every.items()}
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


def moved_at_least(table: pd.DataFrame) -> float:
    """The least probability that moved between A and B, a lower bound of their total variation, from `next_table`.

    A token that a model does not list has at most the probability of its last listed one, and all such tokens together
    at most what the list leaves over. TV = max over sets S of tokens of |P_A(S) - P_B(S)|, so each set gives a bound.
    """
    a, b = (table[f"probability_{side}"].to_numpy() for side in "ab")
    return max(_gain(a, b), _gain(b, a))


def _gain(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """P_A(S) - P_B(S) at least, for the tokens S that A holds likelier."""
    both, only = ~np.isnan(a) & ~np.isnan(b), ~np.isnan(a) & np.isnan(b)
    known = b[~np.isnan(b)]
    most = min(float(np.minimum(a[only], known.min(initial=1)).sum()), max(0.0, 1 - float(known.sum())))
    return float(np.maximum(a[both] - b[both], 0).sum()) + float(a[only].sum()) - most


def next_tokens(comparison: Comparison, view: View) -> Figure:
    """The likeliest next tokens of both models at the pinned piece of text, as a slope chart."""
    cells = comparison.cells
    assert cells is not None
    if not len(cells):
        table = pd.DataFrame({"token": [], "probability_a": [], "probability_b": []})
        return Figure("next", "Next tokens", "Both models scored no common text.", go.Figure, lambda: table)
    inside = np.flatnonzero((cells.start <= (view.pinned or 0)) & ((view.pinned or 0) < cells.end))
    piece = int(inside[0]) if len(inside) else 0
    table = next_table(comparison, piece)
    if comparison.divergences is None:
        moved = f"at least {significant(moved_at_least(table))} of the probability moved; tokens are joined by text"
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
