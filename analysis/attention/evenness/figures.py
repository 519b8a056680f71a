"""The figures of a study of evenness over several models, drawn from its table."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.attention.evenness.statistics import BAR
from analysis.attention.evenness.tables import OF_MEAN, shown
from analysis.figures.figure import Figure, FigureSet, safe
from analysis.figures.theme import CARD, ORANGE, SERIES, SOFT, styled
from analysis.view import Theme

PANELS = (
    ("effective", "effective context states of one head, over K", True),
    (OF_MEAN, "of the mean over heads, over K", True),
    ("context_share", "share of attention on the context", False),
)
ROW = 26  # pixels
DASHES = ("solid", "dash", "dashdot")


def models(table: pd.DataFrame, theme: Theme) -> Figure:
    """All models: effective context states over K, the same for mean weights, and the share on the context."""
    return Figure(
        "models",
        "How evenly are the context states used?",
        f"Mean over queries, heads and layers with the 95% interval over documents; 1 is even, 1/K one state. Dashed: "
        f"{BAR:g}, from which it counts as fairly even. Dots: single seeds. Hollow: untrained.",
        lambda: _draw_models(table, theme),
        lambda: table[table["level"] == "pooled"],
    )


def places(table: pd.DataFrame, theme: Theme) -> Figure:
    """Evenness by layer of the micro decoder and by micro position, a line for each model."""
    return Figure(
        "places",
        "Where in the micro decoder?",
        "Effective context states over K by layer of the micro decoder, and by predicted token; 95% "
        f"intervals over documents. Dashed: {BAR:g}. Dotted lines: untrained.",
        lambda: _draw_places(table, theme),
        lambda: table[table["level"].isin(["layer", "position"]) & (table["figure"] == "effective")],
    )


def _draw_models(table: pd.DataFrame, theme: Theme) -> go.Figure:
    pooled = table[table["level"] == "pooled"]
    rows = shown(pooled)
    order = list(pooled["variant"].drop_duplicates())
    lowest = 0.9 / float(pooled["states"].max())
    figure = make_subplots(
        cols=len(PANELS), shared_yaxes=True, horizontal_spacing=0.03, subplot_titles=[title for _, title, _ in PANELS]
    )
    for col, (name, title, share) in enumerate(PANELS, 1):
        for single in (True, False):
            part = pooled[~pooled["model"].isin(rows["model"])] if single else rows
            part = part[part["figure"] == name]
            over = part["states"] if share else 1.0
            mean, low, high = (part[key] / over for key in ("mean", "low", "high"))
            color = ORANGE[theme]
            ground = [CARD[theme] if each else color for each in part["untrained"]]
            marker = {"size": 4, "color": SOFT[theme]} if single else {
                "size": 6, "color": ground, "line": {"color": color, "width": 2}
            }  # fmt: skip
            figure.add_trace(
                go.Scatter(
                    x=mean,
                    y=[order.index(each) + (0.24 if single else 0) for each in part["variant"]],
                    mode="markers",
                    marker=marker,
                    error_x=None
                    if single
                    else {"array": high - mean, "arrayminus": mean - low, "color": color, "thickness": 1.5, "width": 6},
                    customdata=[[_label(each)] for each in part["model"]],
                    hovertemplate=f"%{{customdata[0]}}<br>{title} %{{x:.3g}}<extra></extra>",
                    showlegend=False,
                ),
                row=1,
                col=col,
            )
        if share:
            figure.add_vline(x=BAR, line={"color": SOFT[theme], "width": 1, "dash": "dash"}, row=1, col=col)
        figure.update_xaxes(range=[lowest if share else 0, 1.03], dtick=0.25, row=1, col=col)
    labels = [_label(each) for each in order]
    figure = styled(figure, theme, 130 + ROW * len(order))
    figure.update_yaxes(range=[len(order) - 0.4, -0.6], tickvals=list(range(len(order))), ticktext=labels)
    figure.update_yaxes(showticklabels=False, col=2)
    figure.update_yaxes(showticklabels=False, col=3)
    figure.update_annotations(font={"size": 12})
    return figure


def _draw_places(table: pd.DataFrame, theme: Theme) -> go.Figure:
    rows = shown(table[table["figure"] == "effective"])
    names = list(table["variant"].drop_duplicates())
    figure = make_subplots(
        cols=2, shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=["by micro layer", "by token of the segment"]
    )
    for col, (level, axis) in enumerate((("layer", "layer"), ("position", "position")), 1):
        part = rows[rows["level"] == level]
        for i, variant in enumerate(names):
            own = part[part["variant"] == variant]
            k = own["states"]
            aside = (i - (len(names) - 1) / 2) * min(0.06, 0.5 / max(1, len(names)))  # so that intervals do not overlap
            untrained = bool(own["untrained"].any())
            figure.add_trace(
                go.Scatter(
                    x=own[axis].astype(float) + aside,
                    y=own["mean"] / k,
                    error_y={
                        "array": (own["high"] - own["mean"]) / k,
                        "arrayminus": (own["mean"] - own["low"]) / k,
                        "thickness": 1,
                    },
                    mode="lines+markers",
                    line={
                        "color": SOFT[theme] if untrained else SERIES[theme][i % len(SERIES[theme])],
                        "dash": "dot" if untrained else DASHES[i // len(SERIES[theme]) % len(DASHES)],
                    },
                    name=_label(variant),
                    legendgroup=str(i),
                    showlegend=col == 1,
                    hovertemplate=f"{_label(variant)}<br>%{{y:.3g}} of K<extra></extra>",
                ),
                row=1,
                col=col,
            )
        figure.add_hline(y=BAR, line={"color": SOFT[theme], "width": 1, "dash": "dash"}, row=1, col=col)
        figure.update_xaxes(tickvals=sorted(set(part[axis].astype(int))), row=1, col=col)
    figure = styled(figure, theme, 420 + 18 * -(-len(names) // 3))
    figure.update_layout(legend={"y": -0.16, "yanchor": "top"})
    figure.update_yaxes(range=[0.9 / float(rows["states"].max()), 1.03])
    figure.update_yaxes(title="effective context states, over K", col=1)
    figure.update_annotations(font={"size": 12})
    return figure


def _label(name: str) -> str:
    """A model's name, escaped for HTML."""
    return safe(name, 48).replace("·", " ")


FIGURES = FigureSet({"models": models, "places": places})
draw = FIGURES.draw
