"""The figures of an attribution: the text, its strongest units, and curves that show how faithful it is."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.attribution.methods import METHODS
from analysis.attribution.quantities import BASELINES
from analysis.attribution.view import ShownAttribution
from analysis.figures.figure import Figure, FigureSet, safe, visible
from analysis.figures.static_strip import Page, StillRow, around
from analysis.figures.theme import BLUE, INK, ORANGE, SOFT, styled
from analysis.score_registry import significant

MOST_BARS = 20


def text(shown: ShownAttribution) -> Figure:
    """The text before the target, coloured by the value of each unit."""
    return Figure(
        "attribution",
        f"What {visible(target_text(shown), 30)} depends on",
        f"{shown.what}; baseline: {BASELINES[shown.request.baseline]}. Orange raises it, blue lowers it; the deepest "
        f"colour is {significant(top(shown) * shown.scale)} {shown.unit}. Summed over {shown.summed_over}.",
        lambda: _draw_text(shown),
        lambda: shown.table(),
    )


def headline(shown: ShownAttribution) -> str:
    """What the quantity at the target depends on most, in one sentence."""
    value, target = shown.found.found.f_input * shown.scale, visible(target_text(shown), 30)
    said = f"The {shown.quantity.title} at “{target}” is {significant(value)} {shown.unit}"
    change = shown.groups.value * shown.scale
    if np.isnan(change).all():
        return f"{said}."
    most = int(np.nanargmax(np.abs(change)))
    verb, name = "raises" if change[most] > 0 else "lowers", visible(shown.groups.text[most], 30)
    return f"{said}; “{name}” changes it most, and {verb} it by {significant(abs(float(change[most])))} {shown.unit}."


def units(shown: ShownAttribution) -> Figure:
    """The units with the largest values, strongest first."""
    method = METHODS[shown.request.method]
    errors = "; lines are standard errors" if shown.found.batches is not None else ""
    return Figure(
        "units",
        f"The strongest {shown.summed_over}",
        f"The {min(MOST_BARS, len(strongest(shown)))} of {len(shown.groups):,} {shown.summed_over} with the largest "
        f"attribution, strongest first, in {shown.unit}{errors}. {method.title.capitalize()}: {method.meaning}.",
        lambda: _draw_units(shown),
        lambda: shown.table().iloc[strongest(shown)],
    )


def curves(shown: ShownAttribution) -> Figure:
    """The deletion and insertion curves, with random orders for comparison."""
    return Figure(
        "curves",
        "Is it faithful?",
        f"The {shown.quantity.title} while tokens are replaced by the baseline (deletion) or put back (insertion), "
        "starting with those that push it most towards its value on the text. Dashed: mean and range of 5 random "
        "orders. The farther the two curves are apart, the more faithful the attribution.",
        lambda: _draw_curves(shown),
        lambda: shown.found.faithfulness.table(shown.scale, shown.unit),
    )


def target_text(shown: ShownAttribution) -> str:
    """The token at which the quantity is read."""
    return shown.found.encoded.display[shown.found.target]


def top(shown: ShownAttribution) -> float:
    """The largest absolute attribution of a unit, in nats: the end of the colour scale."""
    return float(np.nanmax(np.abs(shown.groups.value)))


def strongest(shown: ShownAttribution) -> NDArray[np.int64]:
    """The units that are drawn as bars, strongest first."""
    size = np.nan_to_num(np.abs(shown.groups.value), nan=-1.0)
    order = np.argsort(-size, kind="stable")[:MOST_BARS]
    units: NDArray[np.int64] = order[size[order] >= 0]
    return units


def per_token(shown: ShownAttribution) -> NDArray[np.float64]:
    """[N] the value of each token's unit, divided by the largest: -1 to 1. NaN from the target on, and if missing."""
    groups = shown.groups
    out = np.full(len(shown.found.encoded), np.nan)
    out[: shown.found.target] = np.repeat(groups.value, groups.last - groups.first + 1)
    out[: shown.found.target][np.isnan(shown.found.values)] = np.nan
    return out / (top(shown) or 1.0)


def _draw_text(shown: ShownAttribution) -> go.Figure:
    page, encoded = Page(shown.view.theme, signed=True), shown.found.encoded
    value, at = per_token(shown), int(encoded.start[shown.found.target])
    deepest = significant(top(shown) * shown.scale)
    begins = np.zeros(len(encoded), dtype=bool)
    begins[shown.groups.first] = True
    begins[shown.found.target] = True

    def hover(i: int) -> str:
        return f"{safe(encoded.display[i])}<br>{significant(float(value[i]) * top(shown) * shown.scale)} {shown.unit}"

    row = StillRow(encoded.start, encoded.end, value.astype(np.float32), hover, begins)
    for line in around(encoded.text[: int(encoded.end[shown.found.target])], at):
        page.add_row(encoded.text, line, "", row)
        page.gap()
    return page.figure(
        f"Blue to orange: \u2212{deepest} to {deepest} {shown.unit}. Grey: the token itself, or missing."
    )


def _draw_units(shown: ShownAttribution) -> go.Figure:
    order, groups, theme = strongest(shown)[::-1], shown.groups, shown.view.theme
    value = groups.value[order] * shown.scale
    error = None if groups.standard_error is None else groups.standard_error[order] * shown.scale
    names = [f"{safe(groups.text[i], 24)} ({i})" for i in order.tolist()]
    figure = go.Figure(
        go.Bar(
            x=value,
            y=names,
            orientation="h",
            marker={"color": [ORANGE[theme] if v >= 0 else BLUE[theme] for v in value]},
            error_x=None if error is None else {"array": error, "color": INK[theme], "thickness": 1.2},
            customdata=[significant(float(v)) for v in value],
            hovertemplate=f"%{{y}}<br>%{{customdata}} {shown.unit}<extra></extra>",
        )
    )
    figure.update_xaxes(title=f"attribution, {shown.unit}", zeroline=True)
    return styled(figure, theme, 120 + 22 * max(1, len(order))).update_yaxes(type="category", showgrid=False)


def _draw_curves(shown: ShownAttribution) -> go.Figure:
    check, theme, figure = shown.found.faithfulness, shown.view.theme, go.Figure()
    for name, own, random, color in (
        ("deletion", check.deletion, check.random_deletion, BLUE[theme]),
        ("insertion", check.insertion, check.random_insertion, ORANGE[theme]),
    ):
        low, high = random.min(axis=0) * shown.scale, random.max(axis=0) * shown.scale
        quiet = {"x": check.share, "mode": "lines", "hoverinfo": "skip", "showlegend": False}
        figure.add_scatter(**quiet, y=low, line={"width": 0})
        figure.add_scatter(**quiet, y=high, line={"width": 0}, fill="tonexty", fillcolor=_faint(color))
        hover = f"%{{x:.0%}} of tokens<br>%{{y:.3g}} {shown.unit}"
        for label, curve, dash in (
            (f"{name}, random order", random.mean(axis=0), "dash"),
            (f"{name}, by attribution", own, "solid"),
        ):
            figure.add_scatter(
                x=check.share,
                y=curve * shown.scale,
                name=label,
                mode="lines+markers" if dash == "solid" else "lines",
                line={"color": color, "width": 2 if dash == "solid" else 1.2, "dash": dash},
                hovertemplate=f"{label}<br>{hover}<extra></extra>",
            )
    for level, label in ((shown.found.found.f_input, "text"), (shown.found.found.f_baseline, "baseline")):
        figure.add_hline(
            y=level * shown.scale,
            line={"color": SOFT[theme], "width": 1, "dash": "dot"},
            annotation={"text": label, "font": {"color": SOFT[theme], "size": 11}},
            annotation_position="top right",
        )
    figure.update_xaxes(title="share of tokens replaced (deletion) or put back (insertion)", tickformat=".0%")
    figure.update_yaxes(title=f"{shown.quantity.title}, {shown.unit}")
    return styled(figure, theme, 380)


def _faint(color: str) -> str:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.12)"


FIGURES = FigureSet({"attribution": text, "units": units, "curves": curves})
draw = FIGURES.draw
