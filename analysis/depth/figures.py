"""The figures of depth: layers by tokens, means by layer, where tokens are decided, and whether early where sure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from analysis.depth.options import DepthView
from analysis.depth.result import Depth, LayeredText
from analysis.depth.statistics import (
    change_by_layer,
    counted,
    decided_in_bins,
    decided_shares,
    mean_by_layer,
    units_of,
)
from analysis.depth.strip_figure import beside, strip
from analysis.depth.tables import per
from analysis.figures.figure import Figure, FigureSet, safe
from analysis.figures.theme import BLUE, INK, ORANGE, SOFT, colorscale, styled
from analysis.intervals import Estimates
from analysis.score_registry import Score, significant

TOKENS = 160  # columns of a heat map: more cannot be told apart, nor be sent in a moment
NAMED = 60  # columns that are named
BETWEEN = 110  # pixels between two heat maps, for the names of tokens
BAR = 40  # pixels below, for the colours
BINS = 8
FEWEST = 12  # tokens of a bin
CHANGE = "B − A"
FADED = 0.18  # opacity of a band


@dataclass(frozen=True)
class _Panel:
    """One heat map: W columns of a text."""

    key: str  # A, B or B − A
    title: str  # as HTML
    shown: Score
    values: NDArray[np.floating]  # [L + 1, W] in the shown unit
    words: list[str]  # [W]
    hover: list[list[str]]  # [L + 1][W] what follows the value
    decided: tuple[NDArray[np.float64], ...]  # [W] of the model, or of A and B
    span: NDArray[np.int32]  # [W, 2] characters of the document
    first: int  # its place among all columns


def heatmap(depth: Depth, view: DepthView) -> Figure:
    """Layers up, tokens to the right; a mark where each token is decided."""

    @cache
    def panels() -> list[_Panel]:
        if view.lens == "change":
            return [_change_panel(depth, view)]
        return [_panel(*side, view) for side in depth.seen(view.lens)]

    if view.lens == "change":
        depth.check_change()
    depth.seen(view.lens)  # there are such models

    def make() -> go.Figure:
        drawn = panels()
        height = sum(max(150, min(420, 14 * len(panel.values))) + BETWEEN for panel in drawn) + BAR
        titles = [panel.title for panel in drawn]
        figure = make_subplots(rows=len(drawn), subplot_titles=titles, vertical_spacing=BETWEEN / height)
        for row, panel in enumerate(drawn, 1):
            _draw_panel(figure, row, panel, view)
        figure = styled(figure, view.theme, height)
        return figure.update_annotations(font_size=13).update_layout(
            showlegend=False, margin_t=40, margin_b=BAR + BETWEEN // 2
        )

    def table() -> pd.DataFrame:
        tables = []
        for panel in panels():
            rows, width = panel.values.shape
            columns: dict[str, object] = {
                "model": panel.key, "layer": np.repeat(np.arange(rows), width),
                "column": np.tile(np.arange(width) + panel.first, rows), "text": panel.words * rows,
                "start": np.tile(panel.span[:, 0], rows), "end": np.tile(panel.span[:, 1], rows),
                panel.shown.name: panel.values.astype(np.float64).ravel(),
            }  # fmt: skip
            names = ["decided"] if len(panel.decided) == 1 else ["decided_a", "decided_b"]
            columns |= {name: np.tile(each, rows) for name, each in zip(names, panel.decided, strict=True)}
            tables.append(pd.DataFrame(columns).assign(unit=panel.shown.unit(view.unit)))
        return pd.concat(tables, ignore_index=True)

    of, mark = view.shown.title, "The line shows where each token is decided"
    if view.lens == "change":
        of, mark = view.shown.difference().title, "The lines show where A (dotted) and B decide"
    return Figure(
        "heatmap",
        "Layers by tokens",
        f"{of[0].upper()}{of[1:]} of every layer's prediction; layer 0 is of the embeddings, the last one is the final"
        f" prediction. {mark}: from this layer on, the likeliest word stays the final one. {_lens_words(depth)}",
        make,
        table,
    )


def layers(depth: Depth, view: DepthView) -> Figure:
    """The mean over the tokens after each layer, and below B minus A."""
    paired, each = len(depth.sides) == 2 and depth.same_layers, per(view.score, depth.same_tokenizer)
    unit = view.shown.unit(view.unit)
    unit_of_change = f"{unit} per byte" if each == "byte" else unit

    @cache
    def estimates() -> tuple[list[Estimates], Estimates | None]:
        sides = counted(depth, view.role)
        means = [mean_by_layer(side, view.score, view.unit) for side in sides]
        if not paired:
            return means, None
        return means, change_by_layer(sides[0], sides[1], view.score, view.unit, each)

    def make() -> go.Figure:
        means, change = estimates()
        figure = make_subplots(rows=2 if paired else 1, shared_xaxes=True, row_heights=[0.65, 0.35] if paired else None)
        for key, side, found, color in zip(depth.keys, depth.sides, means, _colors(view), strict=False):
            draw_band(
                figure, _axis(depth, side.count), found, f"{key} {safe(side.scored.facts.name)}", color, row=1, col=1
            )
        figure.update_yaxes(title=view.axis, row=1, col=1)
        if change is not None:
            at = _axis(depth, len(change.mean) - 1)
            draw_band(figure, at, change, CHANGE, INK[view.theme], legend=False, row=2, col=1)
            figure.add_hline(y=0, line={"color": SOFT[view.theme], "width": 1}, row=2, col=1)
            figure.update_yaxes(title=f"B − A, {unit_of_change}", row=2, col=1)
        figure.update_xaxes(title=_axis_title(depth), row=2 if paired else 1, col=1)
        return styled(figure, view.theme, 460 if paired else 340)

    def table() -> pd.DataFrame:
        means, change = estimates()
        tables = [
            _estimates_table(found, view.score).assign(unit=unit, model=key)
            for key, found in zip(depth.keys, means, strict=True)
        ]
        if change is not None:
            tables.append(_estimates_table(change, view.score).assign(unit=unit_of_change, model=CHANGE))
        return pd.concat(tables, ignore_index=True)

    return Figure(
        "layers",
        "Layer by layer",
        f"Mean {view.shown.title} of each layer's prediction over the tokens; {units_of(depth, view.role).meaning}."
        f" {_lens_words(depth)}",
        make,
        table,
    )


def decided(depth: Depth, view: DepthView) -> Figure:
    """The share of the tokens that is decided at each layer."""
    shares = cache(lambda: [decided_shares(side) for side in counted(depth, view.role)])

    def make() -> go.Figure:
        figure = go.Figure()
        for key, side, found, color in zip(depth.keys, depth.sides, shares(), _colors(view), strict=False):
            known = np.isfinite(found.low)
            figure.add_trace(
                go.Bar(
                    x=_axis(depth, side.count), y=found.mean, name=f"{key} {safe(side.scored.facts.name)}",
                    marker={"color": color, "opacity": 0.75},
                    error_y={
                        "type": "data", "symmetric": False, "thickness": 1, "width": 2, "color": INK[view.theme],
                        "array": np.where(known, found.high - found.mean, 0),
                        "arrayminus": np.where(known, found.mean - found.low, 0),
                    },
                    hovertemplate=f"%{{x:.3g}}<br>%{{y:.1%}} of tokens<extra>{key}</extra>",
                )
            )  # fmt: skip
        figure.update_xaxes(title=f"decided at: {_axis_title(depth)}")
        figure.update_yaxes(title="share of tokens", tickformat=".0%", rangemode="tozero")
        return styled(figure, view.theme, 340).update_layout(barmode="group")

    def table() -> pd.DataFrame:
        return pd.concat(
            [
                pd.DataFrame(
                    {
                        "model": key, "layer": np.arange(side.count + 1), "share": found.mean, "share_low": found.low,
                        "share_high": found.high, "so_far": np.cumsum(found.mean), "unit": "share",
                    }
                )
                for key, side, found in zip(depth.keys, depth.sides, shares(), strict=True)
            ],
            ignore_index=True,
        )  # fmt: skip

    return Figure(
        "decided",
        "Where tokens are decided",
        "Share of the tokens decided at each layer: the first layer from which the likeliest word stays the final one;"
        f" {units_of(depth, view.role).meaning}. {_lens_words(depth)}",
        make,
        table,
    )


def agreement(depth: Depth, view: DepthView) -> Figure:
    """The mean layer of decision over the final prediction's score, in bins of equally many tokens."""
    shown = beside(view)

    @cache
    def found() -> list[tuple[NDArray[np.float64], Estimates]]:
        bins = []
        for side in counted(depth, view.role):
            middle, at, _ = decided_in_bins(side, shown.name, view.unit, max(1, min(BINS, side.count // FEWEST)))
            top = 1 if depth.same_layers else side.layers.count
            bins.append((middle, Estimates(at.mean / top, at.low / top, at.high / top)))
        return bins

    def make() -> go.Figure:
        figure = go.Figure()
        for key, side, (middle, means), color in zip(depth.keys, depth.sides, found(), _colors(view), strict=False):
            draw_band(figure, middle, means, f"{key} {safe(side.scored.facts.name)}", color)
        figure.update_xaxes(title=f"final {shown.title}, {shown.unit(view.unit)}")
        figure.update_yaxes(
            title=f"mean {'layer' if depth.same_layers else 'relative depth'} of decision", rangemode="tozero"
        )
        return styled(figure, view.theme, 340)

    def table() -> pd.DataFrame:
        tables = []
        for key, (middle, means) in zip(depth.keys, found(), strict=True):
            columns = {"model": key, shown.name: middle, "decided": means.mean}
            columns |= {"decided_low": means.low, "decided_high": means.high}
            tables.append(pd.DataFrame(columns).assign(unit=shown.unit(view.unit)))
        return pd.concat(tables, ignore_index=True)

    return Figure(
        "agreement",
        "Decided early where sure?",
        f"The mean layer at which a token is decided, over the final prediction's {shown.title}, in bins of equally"
        f" many tokens; {units_of(depth, view.role).meaning}. {_lens_words(depth)}",
        make,
        table,
    )


FIGURES = FigureSet({"strip": strip, "heatmap": heatmap, "layers": layers, "decided": decided, "agreement": agreement})
draw = FIGURES.draw


def _panel(key: str, side: LayeredText, view: DepthView) -> _Panel:
    encoded = side.scored.encoded
    span = np.stack([encoded.source_start, encoded.source_end], axis=1)
    at = _window(span, view)
    place = range(*at.indices(len(encoded)))
    tops = [[f"“{safe(side.top_word(layer, t))}”" for t in place] for layer in range(side.count + 1)]
    return _Panel(
        key, f"{key} {safe(side.scored.facts.name)}{_part(at, len(encoded))}", view.shown,
        _of_role(side.values(view.score, view.unit), encoded.role, view)[:, at],
        [encoded.text[encoded.start[t] : encoded.end[t]] for t in place], tops, (side.decided[at],), span[at],
        at.start,
    )  # fmt: skip


def _change_panel(depth: Depth, view: DepthView) -> _Panel:
    cells = depth.cells
    assert cells is not None
    span = np.stack([cells.start, cells.end], axis=1)
    at = _window(span, view)
    a, b = (each[at] for each in depth.decided_in_cells())
    hover = [f"decided: A {significant(x)}, B {significant(y)}" for x, y in zip(a, b, strict=True)]
    values = _of_role(depth.change(view.score, view.unit), cells.role, view)[:, at]
    words = [depth.document.text[s:e] for s, e in span[at].tolist()]
    return _Panel(
        CHANGE, f"{CHANGE}{_part(at, len(cells))}", view.shown.difference(), values, words, [hover] * len(values),
        (a, b), span[at], at.start,
    )  # fmt: skip


def _of_role(values: NDArray[np.floating], role: NDArray[np.str_], view: DepthView) -> NDArray[np.floating]:
    return values if view.role == "all" else np.where(role == view.role, values, np.nan)


def _window(span: NDArray[np.int32], view: DepthView) -> slice:
    """The columns that are drawn: from `start`, or around the pinned character."""
    first = view.start
    if first is None:
        pinned = _pinned(span, view)
        first = 0 if pinned is None or len(span) <= TOKENS else pinned - TOKENS // 2
    first = max(0, min(first, len(span) - TOKENS if view.start is None else len(span) - 1))
    return slice(first, min(len(span), first + TOKENS))


def _pinned(span: NDArray[np.int32], view: DepthView) -> int | None:
    if view.pinned is None:
        return None
    at = np.flatnonzero((span[:, 0] <= view.pinned) & (view.pinned < span[:, 1]))
    return int(at[0]) if len(at) else None


def _part(at: slice, total: int) -> str:
    return "" if at.stop - at.start == total else f", {at.start:,} to {at.stop - 1:,} of {total:,}"


def _draw_panel(figure: go.Figure, row: int, panel: _Panel, view: DepthView) -> None:
    shown, (rows, width) = panel.shown, panel.values.shape
    low, high = shown.ends(view.unit)
    bottom, gap = -1 if shown.signed else 0, 1 if width <= NAMED else 0  # a gap would hide narrow cells
    figure.add_trace(
        go.Heatmap(
            z=shown.shade(panel.values, view.unit), x0=0, dx=1, y0=0, dy=1, zmin=bottom, zmax=1,
            colorscale=colorscale(view.theme, shown.signed), text=_hover(panel, view), hoverinfo="text",
            xgap=gap, ygap=gap,
            colorbar={
                "orientation": "h", "thickness": 10, "len": 0.6, "yref": "container", "y": 0, "yanchor": "bottom",
                "tickvals": [bottom, 1], "ticktext": [_short(low), _short(high)],
            },
            showscale=row == 1,
        ),
        row=row, col=1,
    )  # fmt: skip
    for where, dash in zip(panel.decided[::-1], ("solid", "dot"), strict=False):
        line = {"shape": "hvh", "color": INK[view.theme], "width": 1, "dash": dash}
        figure.add_trace(
            go.Scatter(x=np.arange(width), y=where, mode="lines", line=line, hoverinfo="skip"), row=row, col=1
        )
    pinned = _pinned(panel.span, view)
    if pinned is not None:
        line = {"color": BLUE[view.theme], "width": 2}
        figure.add_shape(
            type="rect", x0=pinned - 0.5, x1=pinned + 0.5, y0=-0.5, y1=rows - 0.5, line=line, row=row, col=1
        )
    named = width <= NAMED
    figure.update_xaxes(
        tickvals=list(range(width)) if named else None,
        ticktext=[safe(word, 12) for word in panel.words] if named else None,
        tickangle=-60 if named else 0, range=[-0.5, width - 0.5], showgrid=False, zeroline=False,
        title=None if named else "token", row=row, col=1,
    )  # fmt: skip
    figure.update_yaxes(title="layer", range=[-0.5, rows - 0.5], showgrid=False, zeroline=False, row=row, col=1)


def _hover(panel: _Panel, view: DepthView) -> list[list[str]]:
    unit = panel.shown.unit(view.unit)
    words = [safe(word) for word in panel.words]
    return [
        [
            f"{words[t]}<br>layer {layer}: {significant(float(value))} {unit}<br>{panel.hover[layer][t]}"
            for t, value in enumerate(values)
        ]
        for layer, values in enumerate(panel.values)
    ]


def _short(end: str) -> str:
    return end.partition(",")[0]


def draw_band(
    figure: go.Figure, x: NDArray[np.floating], found: Estimates, name: str, color: str, legend: bool = True,
    **place: int,
) -> None:  # fmt: skip
    """A line and the band of its intervals; `place` is the row and column of a subplot."""
    known = np.isfinite(found.low)
    band = np.concatenate([found.high[known], found.low[known][::-1]])
    figure.add_trace(
        go.Scatter(
            x=np.concatenate([x[known], x[known][::-1]]), y=band, fill="toself", fillcolor=color, opacity=FADED,
            mode="lines", line={"width": 0}, hoverinfo="skip", showlegend=False,
        ),
        **place,
    )  # fmt: skip
    ends = [found.at(i).ends(significant, "95% ") for i in range(len(x))]
    figure.add_trace(
        go.Scatter(
            x=x, y=found.mean, mode="lines+markers", name=name, line={"color": color, "width": 2}, marker={"size": 5},
            customdata=ends, hovertemplate="%{x:.3g}: %{y:.3g}<br>%{customdata}<extra></extra>", showlegend=legend,
        ),
        **place,
    )  # fmt: skip


def _estimates_table(found: Estimates, score: str) -> pd.DataFrame:
    columns = {"layer": np.arange(len(found.mean)), score: found.mean}
    return pd.DataFrame(columns | {f"{score}_low": found.low, f"{score}_high": found.high})


def _axis(depth: Depth, count: int) -> NDArray[np.float64]:
    layer = np.arange(count + 1, dtype=np.float64)
    return layer if depth.same_layers else layer / count


def _axis_title(depth: Depth) -> str:
    return "layer" if depth.same_layers else "relative depth, layer over number of layers"


def _colors(view: DepthView) -> tuple[str, str]:
    return ORANGE[view.theme], BLUE[view.theme]


def _lens_words(depth: Depth) -> str:
    """By which lens the layers were read."""
    lenses = list(dict.fromkeys(side.lens for side in depth.sides))
    if len(lenses) == 1:
        return f"Read by the {lenses[0]}."
    each = (f"the {side.lens} ({key})" for key, side in zip(depth.keys, depth.sides, strict=True))
    return f"Read by {' and '.join(each)}."
