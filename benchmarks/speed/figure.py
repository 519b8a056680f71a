"""A comparison over tau as one figure: what a macro step writes, how fast, and how near to the base."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.figure import safe
from analysis.figures.theme import SERIES, SOFT, styled

PANELS = (
    ("tokens_per_macro_step", "Tokens a base pass"),
    ("speedup", "Wall clock over the base's"),
    ("nll_ratio", "NLL under the base over its own answers'"),
    ("agreement", "Tokens that the base would choose"),
)
DASHES = ("solid", "dash", "dot")


def draw(report: dict[str, Any]) -> go.Figure:
    """A panel a quantity over tau, a line a model and number of prompts at a time, with 95% intervals."""
    figure = make_subplots(2, 2, subplot_titles=[title for _, title in PANELS], vertical_spacing=0.14)
    rows = [row for row in report["rows"] if row["tau"] is not None]
    models = list(dict.fromkeys((row["model"], row["rule"], row["eps"]) for row in rows))
    sizes = sorted({row["at_a_time"] for row in rows})
    for place, (key, _) in enumerate(PANELS):
        for number, (model, rule, eps) in enumerate(models):
            relaxed = "" if eps in (None, 1) else f", eps {eps:g}"
            for size in sizes if key == "speedup" else sizes[-1:]:  # the others hardly depend on it
                own = (model, rule, eps, size)
                line = [row for row in rows if (row["model"], row["rule"], row["eps"], row["at_a_time"]) == own]
                value, low, high = np.array([row[key] for row in line], dtype=float).T
                figure.add_trace(
                    go.Scatter(
                        x=[row["tau"] for row in line],
                        y=value,
                        error_y={"array": high - value, "arrayminus": value - low, "thickness": 1, "width": 3},
                        mode="lines+markers",
                        line={"color": SERIES["light"][number], "dash": DASHES[sizes.index(size) % len(DASHES)]},
                        name=f"{safe(model)}, {rule}{relaxed}, {size} at a time",
                        legendgroup=f"{model} {rule} {eps} {size}",
                        showlegend=key == "speedup",
                    ),
                    row=place // 2 + 1,
                    col=place % 2 + 1,
                )
        if key in ("speedup", "nll_ratio"):
            figure.add_hline(y=1, line={"color": SOFT["light"], "dash": "dot"}, row=place // 2 + 1, col=place % 2 + 1)
    styled(figure, "light", 720)
    figure.update_xaxes(title="tau")
    figure.update_layout(legend={"y": 1.08}, margin={"t": 90})
    return figure
