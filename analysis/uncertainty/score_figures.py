"""Figures of one model on one text: token by token, over the position, and how the score is distributed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.figure import Figure, FigureSet, safe
from analysis.figures.static_strip import LONGEST, Page, wrap
from analysis.figures.theme import INK, ORANGE, styled
from analysis.uncertainty.figures import BINS, side_table
from analysis.uncertainty.result import ScoredText
from analysis.uncertainty.strip_figure import StripText, legend, still_row
from analysis.uncertainty.tables import token_table
from analysis.view import ScoreView


def strip(scored: ScoredText, view: ScoreView) -> Figure:
    """The text as the model read it, each token coloured by its score."""

    def table() -> pd.DataFrame:
        tokens = token_table(scored, view.unit)
        return tokens if view.role == "all" else tokens[tokens["role"] == view.role].reset_index(drop=True)

    def make() -> go.Figure:
        page, text = Page(view.theme, view.shown.signed), scored.encoded.text
        row = still_row(scored, view, StripText(text, source=False))
        for line in wrap(text, 0, min(len(text), LONGEST)):
            page.add_row(text, line, "", row)
            page.gap()
        return page.figure(legend(view.shown, view))

    return Figure("strip", "Token by token", f"{view.shown.title.capitalize()} at each token.", make, table)


def line(scored: ScoredText, view: ScoreView) -> Figure:
    """The score over the position in the text."""
    table = side_table(scored, view)

    def make() -> go.Figure:
        trace = go.Scatter if len(table) < 2000 else go.Scattergl
        figure = go.Figure(
            trace(
                x=table["x"],
                y=table[view.score],
                mode="lines+markers" if len(table) < 400 else "lines",
                marker={"size": 4},
                line={"color": ORANGE[view.theme], "width": 1.5},
                customdata=[safe(token) for token in table["token"]],
                hovertemplate=f"%{{customdata}}<br>%{{y:.3g}} {view.shown.unit(view.unit)}<extra></extra>",
            )
        )
        if view.pinned is not None:
            figure.add_vline(x=view.pinned + 0.5, line={"color": INK[view.theme], "width": 1, "dash": "dot"})
        figure.update_xaxes(title="character of the text")
        figure.update_yaxes(title=view.axis, rangemode="tozero")
        return styled(figure, view.theme, 300)

    return Figure("line", "Over the text", f"{view.shown.title.capitalize()} at each token.", make, lambda: table)


def distribution(scored: ScoredText, view: ScoreView) -> Figure:
    """Share of the tokens in bins of the score, up to the top of the fixed scale."""
    top = view.shown.top(view.unit)
    edges = np.linspace(view.shown.bottom(view.unit), top, BINS + 1)
    values = side_table(scored, view)[view.score].to_numpy()
    counts, _ = np.histogram(np.clip(values, edges[0], top), edges)
    share = counts / max(1, counts.sum())

    def make() -> go.Figure:
        figure = go.Figure(
            go.Bar(
                x=(edges[:-1] + edges[1:]) / 2,
                y=share,
                width=np.diff(edges),
                marker={"color": ORANGE[view.theme]},
                hovertemplate="%{x:.3g}<br>%{y:.1%} of tokens<extra></extra>",
            )
        )
        figure.update_xaxes(title=view.axis)
        figure.update_yaxes(title="share of tokens", tickformat=".0%")
        return styled(figure, view.theme, 380)

    bins = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "tokens": counts, "share": share})
    bins["unit"] = view.shown.unit(view.unit)
    caption = (
        f"Share of the tokens in {BINS} equal bins of {view.shown.title}; the bins at the ends also hold all values "
        "beyond."
    )
    return Figure("distribution", "Distribution", caption, make, lambda: bins)


FIGURES = FigureSet(
    {
        "strip": strip,
        "line": line,
        "distribution": distribution,
    }
)
draw = FIGURES.draw
