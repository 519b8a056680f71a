"""The overview of all layers and heads: a mosaic of small maps, and a statistic of each head."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.attention.pooling import reduced
from analysis.attention.result import MAPS, AttentionResult
from analysis.attention.statistics import STATISTICS, statistic
from analysis.attention.tables import pooled_table, statistic_table
from analysis.figures.figure import Figure
from analysis.figures.theme import INK, styled
from analysis.figures.weight_colors import byte_marks, byte_scale, bytes_of, diverging, sequential
from analysis.score_registry import significant

MOST_CELLS = 1_200_000  # of a mosaic: 1.6 MB for the browser
NUMBERED = 160  # up to this number of heads, each cell shows its number
GAP = 1 / 12  # space between maps, as a share of a map
WIDTH = 900  # pixels of a figure on a page
SMALLEST, LARGEST = 26, 100  # pixels of a map


def maps(result: AttentionResult) -> Figure:
    """The pooled maps of all layers and heads in one picture."""
    request, signed = result.request, result.difference

    def make() -> go.Figure:
        small = _small(result.maps(), request.pool)
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
                colorscale=byte_scale(result.view.theme, signed), hoverinfo="skip",
                colorbar={"title": _legend(result), "thickness": 12, **byte_marks(signed)},
            )
        )  # fmt: skip
        return _grid(figure, result)

    step = _step(result)
    pooled = {"max": "the largest", "mean": "the mean"}[request.pool]
    cell = f"a cell is {pooled} of {step} x {step} {result.reading.unit}s" if step > 1 else "a cell is one weight"
    ends = "from −1 to 1" if signed else "from 0 to 1"
    return Figure(
        "maps",
        "All layers and heads",
        f"{result.title}: queries down, keys to the right, {cell}; coloured by the square root of the weight, {ends}. "
        "A click chooses layer and head.",
        make,
        lambda: pooled_table(result, step),
    )


def statistics(result: AttentionResult) -> Figure:
    """One statistic of all layers and heads."""
    view = result.view
    chosen = statistic(view.shown if view.shown != MAPS else "evenness")

    def make() -> go.Figure:
        values, signed = result.statistic(chosen.name), result.difference
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
        return _grid(figure, result)

    ends = "from 0 to 1" if chosen.top else "from 0 to the largest value in this text"
    if result.difference:
        ends = "from −1 to 1" if chosen.top else "to the largest difference in this text, either way"
    return Figure(
        "statistics",
        f"{chosen.title.capitalize()} of all layers and heads",
        f"{result.title}. {chosen.meaning} Mean over queries; colours {ends}. A click chooses layer and head.",
        make,
        lambda: statistic_table(result),
    )


def _step(result: AttentionResult) -> int:
    overview = result.sides[-1].overview
    return overview.step if overview is not None else 1


def _small(every: NDArray[np.float64], pool: str) -> NDArray[np.float64]:
    """Pool maps further until the mosaic has at most MOST_CELLS cells."""
    layers, heads, side, _ = every.shape
    by = 1
    while layers * heads * (-(-side // by)) ** 2 > MOST_CELLS:
        by += 1
    if by == 1:
        return every
    seen = ~np.isnan(every)
    known = reduced(np.add, seen.astype(np.float64), by)
    if pool == "max":  # for a difference, the value farthest from zero
        high = reduced(np.fmax, np.where(seen, every, -np.inf), by)
        low = reduced(np.fmin, np.where(seen, every, np.inf), by)
        values = np.where(high >= -low, high, low)
    else:
        values = reduced(np.add, np.nan_to_num(every), by) / np.maximum(known, 1)
    return np.where(known > 0, values, np.nan)


def _legend(result: AttentionResult) -> str:
    return "weight, B − A" if result.difference else "weight"


def _grid(figure: go.Figure, result: AttentionResult) -> go.Figure:
    """Add axes of layers and heads, a frame around the chosen pair, and points that react to hover and click."""
    view, theme = result.view, result.view.theme
    table = statistic_table(result)
    places = {layer: i for i, layer in enumerate(result.layers)}
    x, y = table["layer"].map(places).to_numpy(), table["head"].to_numpy()
    layers, heads = len(result.layers), int(y.max()) + 1
    pixels = min(LARGEST, max(SMALLEST, WIDTH / layers))
    hover = [
        f"layer {row['layer']:.0f}, head {row['head']:.0f}<br>"
        + "<br>".join(f"{s.title} {significant(row[s.column])}" for s in STATISTICS.values())
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
        title="layer", tickvals=list(range(0, layers, every)), ticktext=[str(i) for i in result.layers[::every]],
        range=[-0.5, layers - 0.5], showgrid=False, zeroline=False, constrain="domain",
    )  # fmt: skip
    figure.update_yaxes(
        title="head", tickvals=list(range(heads)), range=[heads - 0.5, -0.5], showgrid=False, zeroline=False,
        scaleanchor="x", constrain="domain",
    )  # fmt: skip
    return figure.update_layout(margin_t=12, clickmode="event+select", dragmode=False)
