"""Figures over all layers and heads: every map as a small one in one mosaic, and a statistic of each."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.attention.result import MAPS, AttentionResult
from analysis.attention.statistics import STATISTICS, statistic
from analysis.figures.figure import Figure
from analysis.figures.theme import INK, styled
from analysis.figures.weight_colors import byte_marks, byte_scale, bytes_of, diverging, sequential
from analysis.score_registry import significant

MOST_CELLS = 1_200_000  # of a mosaic: 1.6 MB on its way to the browser
NUMBERED = 160  # heads up to which each number is written
GAP = 1 / 12  # between maps, as a share of a map
WIDTH = 900  # pixels that a page gives a figure
SMALLEST, LARGEST = 26, 100  # pixels of a map


def maps(looked: AttentionResult) -> Figure:
    """The pooled map of every layer and head, in one picture."""
    request, signed = looked.request, looked.difference

    def make() -> go.Figure:
        small = _small(looked.maps(), request.pool)
        layers, heads, side, _ = small.shape
        gap = max(1, round(GAP * side))
        wide = side + gap
        mosaic = np.full((heads, wide, layers, wide), np.nan)
        mosaic[:, :side, :, :side] = small.transpose(1, 2, 0, 3)
        first = -0.5 + (gap / 2 + 0.5) / wide
        figure = go.Figure(
            go.Heatmap(
                z=bytes_of(mosaic.reshape(heads * wide, layers * wide), signed),
                x0=first, dx=1 / wide, y0=first, dy=1 / wide, zmin=0, zmax=255, zsmooth=False,
                colorscale=byte_scale(looked.view.theme, signed), hoverinfo="skip",
                colorbar={"title": _legend(looked), "thickness": 12, **byte_marks(signed)},
            )
        )  # fmt: skip
        return _grid(figure, looked)

    def table() -> pd.DataFrame:
        every = looked.maps()
        layer, head, row, column = np.nonzero(~np.isnan(every))
        step = _step(looked)
        return pd.DataFrame(
            {
                "layer": np.array(looked.layers)[layer],
                "head": head,
                "query": row * step,
                "key": column * step,
                "weight": every[layer, head, row, column],
            }
        )

    step = _step(looked)
    held = {"max": "the largest", "mean": "the mean"}[request.pool]
    cell = f"a cell is {held} of {step} x {step} {looked.reading.unit}s" if step > 1 else "a cell is one weight"
    ends = "from -1 to 1" if signed else "from 0 to 1"
    return Figure(
        "maps",
        "All layers and heads",
        f"{looked.title}: queries down, keys to the right, {cell}; colour by the root of the weight, {ends}. A click "
        "chooses layer and head.",
        make,
        table,
    )


def statistics(looked: AttentionResult) -> Figure:
    """One statistic of every layer and head."""
    view = looked.view
    chosen = statistic(view.shown if view.shown != MAPS else "evenness")

    def make() -> go.Figure:
        values, signed = looked.statistic(chosen.name), looked.difference
        top = chosen.top or float(np.nanmax(np.abs(values), initial=1e-6))
        root = chosen.name != "evenness"
        numbers = {"texttemplate": "%{z:.2f}" if chosen.top else "%{z:.1f}"} if values.size <= NUMBERED else {}
        figure = go.Figure(
            go.Heatmap(
                z=values.T.astype(np.float32), x0=0, dx=1, y0=0, dy=1, zmin=-top if signed else 0, zmax=top,
                colorscale=diverging(view.theme, root) if signed else sequential(view.theme, root),
                hoverinfo="skip", xgap=1, ygap=1, **numbers,
                colorbar={"title": chosen.unit, "thickness": 12},
            )
        )  # fmt: skip
        return _grid(figure, looked)

    ends = "from 0 to 1" if chosen.top else "from 0 to the largest of this text"
    if looked.difference:
        ends = "from -1 to 1" if chosen.top else "to the largest difference of this text, both ways"
    return Figure(
        "statistics",
        f"{chosen.title.capitalize()} of all layers and heads",
        f"{looked.title}. {chosen.meaning} Mean over queries; colours {ends}. A click chooses layer and head.",
        make,
        lambda: statistic_table(looked),
    )


def statistic_table(looked: AttentionResult) -> pd.DataFrame:
    """A row a layer and head: layer, head and all statistics, of one model or B's minus A's."""
    heads = looked.statistic("evenness").shape[1]
    layer, head = np.repeat(looked.layers, heads), np.tile(np.arange(heads), len(looked.layers))
    return pd.DataFrame({"layer": layer, "head": head, **{name: looked.statistic(name).ravel() for name in STATISTICS}})


def _step(looked: AttentionResult) -> int:
    overview = looked.sides[-1].overview
    return overview.step if overview is not None else 1


def _small(every: NDArray[np.float64], pool: str) -> NDArray[np.float64]:
    """Maps that are pooled on until the mosaic has at most MOST_CELLS cells."""
    layers, heads, side, _ = every.shape
    by = 1
    while layers * heads * (-(-side // by)) ** 2 > MOST_CELLS:
        by += 1
    if by == 1:
        return every
    edges, seen = np.arange(0, side, by), ~np.isnan(every)

    def both(reduce: np.ufunc, array: NDArray[np.floating]) -> NDArray[np.floating]:
        found: NDArray[np.floating] = reduce.reduceat(reduce.reduceat(array, edges, axis=2), edges, axis=3)
        return found

    known = both(np.add, seen.astype(np.float64))
    if pool == "max":  # of a difference the one that is farthest from zero
        high = both(np.fmax, np.where(seen, every, -np.inf))
        low = both(np.fmin, np.where(seen, every, np.inf))
        values = np.where(high >= -low, high, low)
    else:
        values = both(np.add, np.nan_to_num(every)) / np.maximum(known, 1)
    return np.where(known > 0, values, np.nan)


def _legend(looked: AttentionResult) -> str:
    return "weight, B − A" if looked.difference else "weight"


def _grid(figure: go.Figure, looked: AttentionResult) -> go.Figure:
    """Axes of layers and heads, the chosen pair framed, and what can be pointed at and clicked."""
    view, theme = looked.view, looked.view.theme
    table = statistic_table(looked)
    places = {layer: i for i, layer in enumerate(looked.layers)}
    x, y = table["layer"].map(places).to_numpy(), table["head"].to_numpy()
    layers, heads = len(looked.layers), int(y.max()) + 1
    pixels = min(LARGEST, max(SMALLEST, WIDTH / layers))
    hover = [
        f"layer {row['layer']:.0f}, head {row['head']:.0f}<br>"
        + "<br>".join(f"{s.title} {significant(row[s.name])}" for s in STATISTICS.values())
        for _, row in table.iterrows()
    ]
    figure.add_trace(
        go.Scattergl(
            x=x, y=y, mode="markers", opacity=0, marker={"symbol": "square", "size": pixels * 0.9}, text=hover,
            hovertemplate="%{text}<extra></extra>", showlegend=False,
        )
    )  # fmt: skip
    if view.layer in places:
        at = places[view.layer]
        low, high = (-0.5, heads - 0.5) if view.source != "head" else (view.head - 0.5, view.head + 0.5)
        figure.add_shape(type="rect", x0=at - 0.5, x1=at + 0.5, y0=low, y1=high, line={"color": INK[theme], "width": 2})
    every = max(1, round(24 / pixels))
    figure = styled(figure, theme, round(90 + heads * pixels))
    figure.update_xaxes(
        title="layer", tickvals=list(range(0, layers, every)), ticktext=[str(i) for i in looked.layers[::every]],
        range=[-0.5, layers - 0.5], showgrid=False, zeroline=False, constrain="domain",
    )  # fmt: skip
    figure.update_yaxes(
        title="head", tickvals=list(range(heads)), range=[heads - 0.5, -0.5], showgrid=False, zeroline=False,
        scaleanchor="x", constrain="domain",
    )  # fmt: skip
    return figure.update_layout(margin_t=12, clickmode="event+select", dragmode=False)
