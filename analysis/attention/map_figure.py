"""Draws one large attention map: words on both axes, segments along the diagonal, a frame around the pinned query.

Cells after the diagonal are missing, not zero. Plotly's heat maps do not report clicks, so each cell has a transparent
point that does. The words of a point stand on a second pair of axes without labels, since the first pair shows only as
many labels as there is room for.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.attention.maps import MapCells
from analysis.attention.pooling import POOLS
from analysis.attention.result import SOURCES, AttentionResult
from analysis.attention.tables import map_table
from analysis.figures.figure import Figure, safe
from analysis.figures.theme import INK, SOFT, styled
from analysis.figures.weight_colors import MARKS, diverging, sequential

HEIGHT = 700
LABELS = 32  # words on an axis at most
FULL_LINES = 40  # boundaries up to which they cross the whole map
LONGEST = 14  # characters of a word on an axis


def attention_map(result: AttentionResult) -> Figure:
    """The chosen map, or the part of it in the view's window."""
    view, reading = result.view, result.reading
    cells = cache(result.cells)

    part = result.window
    unit = "segment" if result.segmented else reading.unit
    step = -(-part.longest // result.most)
    detail = f"one cell per {unit}" if step == 1 else f"a cell holds {step} x {step}: {POOLS[result.request.pool]}"
    where = ""
    if part != type(part).of(result.size):
        where = f" Queries {part.q0} to {part.q1 - 1}, keys {part.k0} to {part.k1 - 1}, of {result.size:,}."
    along = f"; segments ({reading.strategy}) along the diagonal" if len(result.boundaries()) else ""
    return Figure(
        "map",
        f"{result.title}: {view.what}",
        f"{SOURCES[view.source].capitalize()}; {detail}.{where} Queries down, keys to the right"
        f"{along}. A click pins a query.",
        lambda: _draw(result, cells()),
        lambda: map_table(result, cells()),
    )


def _draw(result: AttentionResult, cells: MapCells) -> go.Figure:
    theme, signed, part = result.view.theme, result.difference, cells.window
    middle = (cells.step - 1) / 2
    x, y = cells.keys + middle, cells.queries + middle
    marks = sorted({0.0, *MARKS[1:], *(-mark for mark in MARKS[1:] if signed)})
    figure = go.Figure(
        go.Heatmap(
            z=cells.weight, x0=x[0], dx=cells.step, y0=y[0], dy=cells.step, zmin=-1 if signed else 0, zmax=1,
            colorscale=diverging(theme) if signed else sequential(theme), hoverinfo="skip", hoverongaps=False,
            colorbar={"title": "weight, B − A" if signed else "weight", "thickness": 12, "tickvals": marks},
        )
    )  # fmt: skip
    row, column = np.nonzero(~np.isnan(cells.weight))
    figure.add_trace(
        go.Scattergl(
            x=_small(x[column]), y=_small(y[row]), xaxis="x2", yaxis="y2", mode="markers", opacity=0,
            marker={"symbol": "square", "size": 6}, customdata=cells.weight[row, column].astype(np.float32),
            hovertemplate="from %{y}<br>to %{x}<br>weight %{customdata:.3g}<extra></extra>", showlegend=False,
        )
    )  # fmt: skip
    _boundaries(figure, result, part.k0, part.k1, part.q0, part.q1)
    _pin(figure, result, cells)
    figure = styled(figure, theme, HEIGHT)
    names = result.names()
    across, down = [part.k0 - 0.5, part.k1 - 0.5], [part.q1 - 0.5, part.q0 - 0.5]
    plain = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    hidden = {**plain, "showticklabels": False, "ticks": "", "tickmode": "array"}
    figure.update_layout(
        xaxis={**plain, **_labels(names, cells.keys), "range": across, "title": "key: attended to", "tickangle": -60},
        yaxis={**plain, **_labels(names, cells.queries), "range": down, "title": "query: attends", "scaleanchor": "x"},
        xaxis2={**hidden, **_every(names, cells.keys, cells), "overlaying": "x", "matches": "x", "range": across},
        yaxis2={**hidden, **_every(names, cells.queries, cells), "overlaying": "y", "matches": "y", "range": down},
        margin_t=12,
        clickmode="event+select",
        uirevision=f"{part}",
    )
    mono = {"family": "'DejaVu Sans Mono', ui-monospace, monospace", "size": 11}
    return figure.update_xaxes(tickfont=mono).update_yaxes(tickfont=mono)


def _small(places: NDArray[np.floating]) -> NDArray[np.generic]:
    """Places as two bytes each if they are whole numbers below 65,536."""
    whole = bool((places % 1 == 0).all()) and bool(places.max(initial=0) < 2**16)
    return places.astype(np.uint16) if whole else places.astype(np.float32)


def _labels(names: tuple[str, ...], at: NDArray[np.int64]) -> dict[str, object]:
    """Tick labels for as many places as there is room for."""
    shown = at[:: max(1, -(-len(at) // LABELS))]
    return {
        "tickmode": "array",
        "tickvals": shown.tolist(),
        "ticktext": [f"{safe(names[i], LONGEST)} {i}" for i in shown.tolist()],
    }


def _every(names: tuple[str, ...], at: NDArray[np.int64], cells: MapCells) -> dict[str, object]:
    """Labels for every place, which only the hover box shows."""
    text = []
    for i in at.tolist():
        last = min(i + cells.step, len(names))
        words = safe("".join(names[i : min(last, i + 6)]), 32)
        text.append(f"{words} ({i})" if cells.step == 1 else f"{words} ({i} to {last - 1})")
    return {"tickvals": (at + (cells.step - 1) / 2).tolist(), "ticktext": text}


def _boundaries(figure: go.Figure, result: AttentionResult, k0: int, k1: int, q0: int, q1: int) -> None:
    """Draw segments as steps along the diagonal, and also across the map if they are few."""
    starts = result.boundaries()
    edges = np.unique(np.concatenate([starts, [result.size]]))
    low, high = min(k0, q0), max(k1, q1)
    inside = edges[(edges >= low) & (edges <= high)]
    if not len(starts) or not len(inside):
        return
    x: list[float | None] = []
    y: list[float | None] = []
    for a, b in zip(inside[:-1].tolist(), inside[1:].tolist(), strict=True):
        x += [a - 0.5, a - 0.5, b - 0.5, None]
        y += [a - 0.5, b - 0.5, b - 0.5, None]
    soft, width = SOFT[result.view.theme], 1
    figure.add_scatter(x=x, y=y, mode="lines", line={"color": soft, "width": width}, hoverinfo="skip", showlegend=False)
    if len(inside) > FULL_LINES:
        return
    across = [place for a in inside.tolist() for place in (k0 - 0.5, min(a, k1) - 0.5, None)]
    up = [place for a in inside.tolist() for place in (a - 0.5, a - 0.5, None)]
    down = [place for a in inside.tolist() for place in (max(a, q0) - 0.5, q1 - 0.5, None)]
    figure.add_scatter(
        x=across + up, y=up + down, mode="lines", line={"color": soft, "width": 0.5}, opacity=0.5, hoverinfo="skip",
        showlegend=False,
    )  # fmt: skip


def _pin(figure: go.Figure, result: AttentionResult, cells: MapCells) -> None:
    """Draw a frame around the row of the pinned query."""
    query, part = result.query, cells.window
    if query is None or not part.q0 <= query < part.q1:
        return
    top = part.q0 + (query - part.q0) // cells.step * cells.step
    left, right, bottom = part.k0 - 0.5, min(part.k1, top + cells.step) - 0.5, min(top + cells.step, part.q1) - 0.5
    figure.add_scatter(
        x=[left, right, right, left, left], y=[top - 0.5, top - 0.5, bottom, bottom, top - 0.5], mode="lines",
        line={"color": INK[result.view.theme], "width": 1.5}, hoverinfo="skip", showlegend=False,
    )  # fmt: skip
