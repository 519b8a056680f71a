"""The figure of a study of depth: distance to the end, what is decided, and whether early where the model is sure."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.depth.figures import draw_band
from analysis.depth.study import DepthStudy, by_layer, in_bins
from analysis.figures.figure import Figure, safe
from analysis.figures.theme import BLUE, ORANGE, styled
from analysis.intervals import Estimates
from analysis.score_registry import Unit
from analysis.view import Theme

TITLES = ("KL to the final prediction", "decided so far", "decided early where sure?")


def study_figure(study: DepthStudy, unit: Unit, theme: Theme) -> Figure:
    """Three panels over both models."""
    layers, bins = by_layer(study, unit), in_bins(study, "entropy", unit)

    def make() -> go.Figure:
        figure = make_subplots(cols=3, subplot_titles=TITLES, horizontal_spacing=0.09)
        for key, name, color in zip("AB", study.names, (ORANGE[theme], BLUE[theme]), strict=True):
            own, tenths = layers[layers["model"] == key], bins[bins["model"] == key]
            depth, label = own["layer" if study.same_layers else "depth"].to_numpy(), f"{key} {safe(name)}"
            draw_band(figure, depth, _estimates(own, "kl"), label, color, row=1, col=1)
            line = {"color": color, "width": 2}
            share = go.Scatter(x=depth, y=own["decided_so_far"], mode="lines+markers", line=line, showlegend=False)
            figure.add_trace(share.update(marker={"size": 5}), row=1, col=2)
            found = _estimates(tenths, "decided")
            draw_band(figure, tenths["entropy"].to_numpy(), found, label, color, legend=False, row=1, col=3)
        layer = "layer" if study.same_layers else "relative depth"
        figure.update_xaxes(title=layer, row=1, col=1).update_xaxes(title=layer, row=1, col=2)
        figure.update_xaxes(title=f"final entropy, {unit}", row=1, col=3)
        figure.update_yaxes(title=unit, rangemode="tozero", row=1, col=1)
        figure.update_yaxes(title="share of tokens", tickformat=".0%", row=1, col=2)
        figure.update_yaxes(title="mean layer of decision", rangemode="tozero", row=1, col=3)
        figure.update_annotations(font_size=13)
        return styled(figure, theme, 400).update_layout(width=1100, margin_t=60, legend_y=1.1)

    return Figure(
        "study",
        "Depth",
        f"{study.names[0]} (A) and {study.names[1]} (B) on many documents: {study.sides[0].units.meaning}.",
        make,
        lambda: layers,
    )


def _estimates(table: pd.DataFrame, name: str) -> Estimates:
    low, mean, high = (table[f"{name}{end}"].to_numpy() for end in ("_low", "", "_high"))
    return Estimates(mean, low, high)
