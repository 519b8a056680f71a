"""The figures of micro attention: segments, weights of heads over slots, shares of slots, and evenness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from analysis.attention.evenness.statistics import BAR, UNDEFINED
from analysis.attention.micro.options import MicroView
from analysis.attention.micro.result import MicroAttention, context_names
from analysis.attention.micro.tables import (
    figure_table,
    segment_figures,
    segment_table,
    slot_names,
    slot_table,
    weight_table,
)
from analysis.figures.figure import Figure, check_figure, safe
from analysis.figures.static_strip import Page, StillRow, around
from analysis.figures.theme import INK, SERIES, SOFT, colorscale, styled
from analysis.intervals import Estimate, Estimates
from analysis.score_registry import significant

MARGIN = 9  # columns for the names of rows
STRIP_LEGEND = (
    "Pale: all context states are used evenly. Dark: only one is. A gap starts a segment. Prompt and single tokens: "
    "none."
)
MOST_LABELS = 14  # characters of a token on an axis


def segments(found: MicroAttention, view: MicroView) -> Figure:
    """The segmented text, shaded by how unevenly each segment uses the context states."""
    return Figure(
        "micro_segments",
        "Segments",
        f"{honest(found)}Each segment of two tokens and more is shaded by 1 − evenness of the weights over the "
        f"{found.states} context states, averaged over layers, heads and micro positions. Segments: {found.cut}."
        f"{_undefined(found)}",
        lambda: _draw_segments(found, view),
        lambda: segment_table(found),
    )


def weights(found: MicroAttention, view: MicroView) -> Figure:
    """Weights of heads over slots in one layer, a panel for each micro position: of one segment, or the mean."""
    which = f"mean over {len(found.first):,} segments" if view.segment is None else _which(found, view.segment)
    return Figure(
        "micro_weights",
        "What each head attends to",
        f"{honest(found)}Attention weights of micro layer {view.layer}, {which}. One panel for each predicted "
        "token. A row sums to 1; empty slots do not exist yet.",
        lambda: _draw_weights(found, view),
        lambda: weight_table(found, view.segment),
    )


def shares(found: MicroAttention, view: MicroView) -> Figure:
    """The mean weight of each slot, by micro position."""
    return Figure(
        "micro_shares",
        "Context or the segment's own tokens?",
        f"{honest(found)}Mean weight of each slot over segments, layers and heads, for each predicted token; "
        f"{found.sums.units.meaning}.",
        lambda: _draw_shares(found, view),
        lambda: slot_table(found),
    )


def evenness(found: MicroAttention, view: MicroView) -> Figure:
    """Effective context states by layer, head and micro position."""
    return Figure(
        "micro_evenness",
        "How evenly are the context states used?",
        f"{honest(found)}exp H of a head's weights over the {found.states} context states, averaged over queries: "
        f"{found.states} is even, 1 is a single state. From {significant(BAR * found.states)} on (dashed), use counts "
        f"as fairly even. {found.sums.units.meaning}.{_undefined(found)}",
        lambda: _draw_evenness(found, view),
        lambda: figure_table(found.sums),
    )


def honest(found: MicroAttention) -> str:
    """The start of the caption for an untrained model."""
    return "Untrained modules. " if found.untrained else ""


def _undefined(found: MicroAttention) -> str:
    """A note for the caption if there is only one context state."""
    return f" {UNDEFINED[0].upper()}{UNDEFINED[1:]}." if found.states == 1 else ""


def _which(found: MicroAttention, segment: int) -> str:
    return f"segment {segment + 1} of {len(found.first):,}"


def _draw_segments(found: MicroAttention, view: MicroView) -> go.Figure:
    page, encoded, number = Page(view.theme), found.encoded, found.segment_of
    even, effective = segment_figures(found)
    shade = np.where(number >= 0, 1 - even[np.maximum(number, 0)], np.nan)

    def hover(i: int) -> str:
        own = int(number[i])
        if own < 0:
            return f"{safe(encoded.display[i])}<br>a segment of one token"
        said = f"{significant(float(effective[own]))} effective context states"
        return f"{safe(encoded.display[i])}<br>segment {own + 1}: {said}"

    row = StillRow(encoded.start, encoded.end, shade.astype(np.float32), hover, found.starts)
    at = None if view.segment is None else int(encoded.start[found.first[view.segment]])
    for line in around(encoded.text, at):
        page.add_row(encoded.text, line, "segments", row)
        page.gap()
    return page.figure(STRIP_LEGEND, MARGIN)


def _draw_weights(found: MicroAttention, view: MicroView) -> go.Figure:
    mean = found.sums.mean_weights.mean if view.segment is None else found.weights[view.segment]
    layer: NDArray[np.floating] = mean[view.layer]  # [H, P, S]
    last = found.positions if view.segment is None else int(found.length[view.segment]) - 1
    names = [_label(name) for name in slot_names(found, view.segment)]
    titles = [f"predicts token {p + 2}" for p in range(last)]
    if view.segment is not None:
        tokens = found.tokens(view.segment)
        titles = [f"predicts token {p + 2}: {safe(tokens[p + 1], 14)}" for p in range(last)]
    figure = make_subplots(cols=last, shared_yaxes=True, horizontal_spacing=0.02, subplot_titles=titles)
    heads = [f"head {h + 1}" for h in range(found.heads)]
    for p in range(last):
        shown = found.states + p + 1
        part = layer[:, p, :shown].astype(np.float64)
        figure.add_trace(
            go.Heatmap(
                z=part,
                x=np.arange(shown),
                y=heads,
                zmin=0,
                zmax=1,
                colorscale=colorscale(view.theme),
                text=[[f"{value:.2f}" for value in row] for row in part],
                texttemplate="%{text}" if shown * last <= 30 else "",
                customdata=[
                    [[name, significant(float(v))] for name, v in zip(names, row, strict=False)] for row in part
                ],
                hovertemplate="%{y}<br>%{customdata[0]}<br>weight %{customdata[1]}<extra></extra>",
                xgap=1,
                ygap=1,
                showscale=p == last - 1,
                colorbar={"thickness": 10, "title": "weight"},
            ),
            row=1,
            col=p + 1,
        )
        figure.update_xaxes(
            tickvals=np.arange(shown), ticktext=names[:shown], tickangle=-60, range=[-0.5, shown - 0.5],
            row=1, col=p + 1,
        )  # fmt: skip
        figure.add_vline(
            x=found.states - 0.5, line={"color": INK[view.theme], "width": 1}, row=1, col=p + 1
        )  # context on the left, the segment's own tokens on the right
    figure = styled(figure, view.theme, 200 + 26 * found.heads)
    figure.update_xaxes(showgrid=False).update_yaxes(showgrid=False, autorange="reversed")
    figure.update_annotations(font={"size": 12})
    return figure


def _draw_shares(found: MicroAttention, view: MicroView) -> go.Figure:
    every = found.sums.slot_shares
    own = [f"token {i} of the segment" for i in range(1, found.positions + 1)]
    figure = go.Figure()
    positions = [f"token {p + 2}" for p in range(found.positions)]
    colors = SERIES[view.theme]
    names = [*context_names(found.micro.context_layers), *own]
    for slot, name in enumerate(names):
        there = ~np.isnan(every.mean[:, slot])
        mean, low, high = (values[:, slot] for values in (every.mean, every.low, every.high))
        said = [Estimate(float(m), float(a), float(b)).spoken() for m, a, b in zip(mean, low, high, strict=True)]
        of_context = slot < found.states
        figure.add_bar(
            x=[positions[i] for i in np.flatnonzero(there)],
            y=mean[there],
            name=name,
            marker={
                "color": colors[slot % len(colors)] if of_context else SOFT[view.theme],
                "pattern": {"shape": "" if of_context else ("/", "\\", "x", ".")[(slot - found.states) % 4]},
            },
            customdata=[said[i] for i in np.flatnonzero(there)],
            hovertemplate=f"{name}<br>%{{customdata}}<extra></extra>",
        )
    figure.update_xaxes(title="predicted token of the segment")
    figure.update_yaxes(title="mean weight", range=[0, 1], tickformat=".0%")
    figure = styled(figure, view.theme, 380).update_layout(barmode="stack", showlegend=True)
    return figure.update_layout(legend={"orientation": "v", "x": 1.02, "xanchor": "left", "y": 1, "yanchor": "top"})


def _draw_evenness(found: MicroAttention, view: MicroView) -> go.Figure:
    sums, k = found.sums, found.states
    panels: list[tuple[str, Estimates, list[str]]] = [
        ("pooled", sums.figure("effective"), ["all"]),
        ("by layer", sums.figure("effective", ("layer",)), [str(i) for i in range(found.layers)]),
        ("by token", sums.figure("effective", ("position",)), [str(p + 2) for p in range(found.positions)]),
        (
            "by layer and head",
            sums.figure("effective", ("layer", "head")),
            [f"{i}.{h}" for i in range(found.layers) for h in range(found.heads)],
        ),
    ]
    widths = np.array([1.4, *(max(1.6, 0.6 * len(names)) for _, _, names in panels[1:3]), 6.0])
    figure = make_subplots(
        cols=len(panels), shared_yaxes=True, horizontal_spacing=0.02, column_widths=list(widths / widths.sum()),
        subplot_titles=[title for title, _, _ in panels],
    )  # fmt: skip
    for col, (title, every, names) in enumerate(panels, 1):
        mean, low, high = (np.atleast_1d(getattr(every, key)).reshape(-1) for key in ("mean", "low", "high"))
        figure.add_trace(
            go.Scatter(
                x=names,
                y=mean,
                mode="markers",
                marker={"size": 8, "color": SERIES[view.theme][col - 1]},
                error_y={"array": high - mean, "arrayminus": mean - low, "thickness": 1.2},
                customdata=[
                    Estimate(m, a, b).spoken()
                    for m, a, b in zip(mean.tolist(), low.tolist(), high.tolist(), strict=True)
                ],
                hovertemplate=f"{title} %{{x}}<br>%{{customdata}} of {k}<extra></extra>",
                showlegend=False,
            ),
            row=1,
            col=col,
        )
        figure.add_hline(y=BAR * k, line={"color": SOFT[view.theme], "width": 1, "dash": "dash"}, row=1, col=col)
        figure.update_xaxes(type="category", tickangle=-60 if col == 4 else 0, row=1, col=col)
    figure = styled(figure, view.theme, 360)
    figure.update_yaxes(range=[0.9, k + 0.1])
    figure.update_yaxes(title="effective context states", col=1)
    figure.update_annotations(font={"size": 12})
    return figure


def _label(slot: str) -> str:
    """A slot's name on an axis, with the text of a token escaped."""
    name, colon, text = slot.partition(": ")
    if not name.startswith("token"):
        return slot
    return f"{name}{colon}{safe(text, MOST_LABELS)}"


FIGURES: dict[str, Callable[[MicroAttention, MicroView], Figure]] = {
    "micro_segments": segments,
    "micro_weights": weights,
    "micro_shares": shares,
    "micro_evenness": evenness,
}


def draw(name: str, found: MicroAttention, view: MicroView) -> Figure:
    """Draw a figure by name.

    Raises:
        MicroStepError: no figure has this name, or the segment or layer does not exist.
    """
    check_figure(name, FIGURES)
    found.check(view.segment, view.layer)
    return FIGURES[name](found, view)
