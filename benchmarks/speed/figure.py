"""A comparison as one figure: how near to the base answers are by tokens a pass, and what tau gives, how fast."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.figure import safe
from analysis.figures.theme import SERIES, SOFT, styled

TAU, TOKENS = "tau", "tokens_per_macro_step"
PANELS = (  # x, y and title
    (TOKENS, "nll_ratio", "NLL under the base over its own answers'"),
    (TOKENS, "agreement", "Tokens that the base would choose"),
    (TAU, TOKENS, "Tokens a base pass"),
    (TAU, "speedup", "Speed over the base's"),
)
DASHES = ("solid", "dash", "dot")


def draw(report: dict[str, Any]) -> go.Figure:
    """A panel a quantity over tokens a pass or tau, a line a model, eps and prompts at a time, with 95% intervals.

    The base is at 1 token a pass, and at 1 in all ratios.
    """
    figure = make_subplots(2, 2, subplot_titles=[title for *_, title in PANELS], vertical_spacing=0.2)
    rows = [row for row in report["rows"] if row["tau"] is not None]
    models = list(dict.fromkeys((row["model"], row["rule"], row["eps"]) for row in rows))
    sizes = sorted({row["at_a_time"] for row in rows})
    for place, (across, key, _) in enumerate(PANELS):
        for number, (model, rule, eps) in enumerate(models):
            relaxed = "" if eps in (None, 1) else f", eps {eps:g}"
            for size in sizes if key == "speedup" else sizes[-1:]:  # the others hardly depend on it
                own = (model, rule, eps, size)
                line = [row for row in rows if (row["model"], row["rule"], row["eps"], row["at_a_time"]) == own]
                if not line:
                    continue
                value, low, high = np.array([row[key] for row in line], dtype=float).T
                figure.add_trace(
                    go.Scatter(
                        x=[row[TAU] if across == TAU else row[TOKENS][0] for row in line],
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
    for place, (across, *_) in enumerate(PANELS):
        figure.update_xaxes(title="tau" if across == TAU else "tokens a pass", row=place // 2 + 1, col=place % 2 + 1)
    figure.update_layout(legend={"y": 1.08}, margin={"t": 90})
    return figure
