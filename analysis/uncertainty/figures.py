"""The figures of a comparison: token strip, curve over the text, scatter, distribution, largest changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from analysis.figures.figure import Figure, check_figure, safe
from analysis.figures.theme import BLUE, INK, LINE, ORANGE, styled
from analysis.uncertainty.next_tokens import next_tokens
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.strip_figure import CHANGES, changed_cells, largest, role_cells, strip
from analysis.uncertainty.tables import token_table
from analysis.view import ScoreView, View
from model.errors import MicroStepError

BINS = 40


def line(comparison: Comparison, view: View) -> Figure:
    """Both models over the position in the text, with the difference per cell below."""
    paired = comparison.cells is not None
    cells = cache(lambda: role_cells(comparison, view))

    @cache
    def table() -> pd.DataFrame:
        sides = []
        for name, side, _ in _sides(comparison, view):
            own = side_table(side, view).assign(model=name)
            sides.append(_with_gap(own, cells(), token_cells(comparison, name), view) if paired else own)
        return pd.concat(sides, ignore_index=True)

    def make() -> go.Figure:
        figure = make_subplots(rows=2 if paired else 1, shared_xaxes=True, row_heights=[0.7, 0.3] if paired else None)
        for name, side, color in _sides(comparison, view):
            own = table()[table()["model"] == name]
            trace = go.Scatter if len(own) < 2000 else go.Scattergl
            figure.add_trace(
                trace(
                    x=own["x"],
                    y=own[view.score],
                    name=f"{name} {safe(side.facts.name)}",
                    mode="lines+markers" if len(own) < 400 else "lines",
                    marker={"size": 4},
                    line={"color": color, "width": 1.5},
                    customdata=[safe(token) for token in own["token"]],
                    hovertemplate=f"%{{customdata}}<br>%{{y:.3g}} {view.shown.unit(view.unit)}<extra>{name}</extra>",
                ),
                row=1,
                col=1,
            )
        figure.update_yaxes(title=view.axis, rangemode="normal" if view.shown.signed else "tozero", row=1, col=1)
        if paired:
            gap = cells()[f"{view.score}_difference"]
            figure.add_trace(
                go.Bar(
                    x=(cells()["start"] + cells()["end"]) / 2,
                    y=gap,
                    width=(cells()["end"] - cells()["start"]).clip(lower=1),
                    marker={"color": np.where(_less_sure(view) * gap > 0, ORANGE[view.theme], BLUE[view.theme])},
                    name="B − A",
                    showlegend=False,
                    customdata=[safe(text) for text in cells()["text"]],
                    hovertemplate="%{customdata}<br>B − A %{y:+.3g}<extra></extra>",
                ),
                row=2,
                col=1,
            )
            figure.update_yaxes(title="B − A", row=2, col=1)
        bottom = "character of the text" if paired else "token of the continuation"
        figure.update_xaxes(title=bottom, row=2 if paired else 1, col=1)
        if view.pinned is not None:
            figure.add_vline(x=view.pinned + 0.5, line={"color": INK[view.theme], "width": 1, "dash": "dot"})
        return styled(figure, view.theme, 420 if paired else 300)

    caption = f"{view.shown.title.capitalize()} at each token " + ("of both models" if paired else "that a model wrote")
    if paired:
        caption += (
            f". Below: B minus A, {'summed' if view.shown.information else 'averaged'} over each common piece of text"
            " (in the data, it stands at the piece's first token)"
        )
    return Figure("line", "Over the text", f"{caption}.", make, table)


def scatter(comparison: Comparison, view: View) -> Figure:
    """A against B for each common cell."""
    table = cache(lambda: role_cells(comparison, view))

    def make() -> go.Figure:
        cells = table()
        x, y = cells[f"{view.score}_a"], cells[f"{view.score}_b"]
        trace = go.Scatter if len(cells) < 2000 else go.Scattergl
        figure = go.Figure()
        top = float(np.nanmax([x.max(), y.max(), 1e-6])) if len(cells) else 1.0
        low = float(np.nanmin([x.min(), y.min(), 0])) if len(cells) else 0.0
        figure.add_trace(
            go.Scatter(x=[low, top], y=[low, top], mode="lines", line={"color": LINE[view.theme]}, hoverinfo="skip")
        )
        figure.add_trace(
            trace(
                x=x,
                y=y,
                mode="markers",
                marker={
                    "size": 6,
                    "opacity": 0.6,
                    "color": np.where(_less_sure(view) * (y - x) > 0, ORANGE[view.theme], BLUE[view.theme]),
                },
                customdata=np.stack([cells["start"].to_numpy(), [safe(t) for t in cells["text"]]], axis=-1)
                if len(cells)
                else None,
                hovertemplate="%{customdata[1]}<br>A %{x:.3g}<br>B %{y:.3g}<extra></extra>",
            )
        )
        pinned = cells[(cells["start"] <= (view.pinned or 0)) & ((view.pinned or 0) < cells["end"])]
        if view.pinned is not None and len(pinned):
            figure.add_trace(
                go.Scatter(
                    x=pinned[f"{view.score}_a"],
                    y=pinned[f"{view.score}_b"],
                    mode="markers",
                    marker={"size": 13, "symbol": "circle-open", "color": INK[view.theme], "line": {"width": 2}},
                    hoverinfo="skip",
                )
            )
        figure.update_layout(showlegend=False)
        figure.update_xaxes(title=f"A: {view.axis}")
        figure.update_yaxes(title=f"B: {view.axis}")
        return styled(figure, view.theme, 380)

    orange = view.shown.drop if view.shown.falls else view.shown.rise
    return Figure(
        "scatter",
        "A against B",
        f"A dot for each common piece of text; orange if {orange}. On the line, both agree.",
        make,
        table,
    )


def distribution(comparison: Comparison, view: View) -> Figure:
    """Share of each model's tokens in bins of the score, over the fixed scale.

    If both models read one text, only tokens in common cells count: one model's context may end before the other's.
    """
    paired = comparison.cells is not None
    bottom, top = view.shown.bottom(view.unit), view.shown.top(view.unit)
    edges = np.linspace(bottom, top, BINS + 1)

    @cache
    def tokens(name: str) -> pd.DataFrame:
        table = side_table(comparison.a if name == "A" else comparison.b, view)
        return table[token_cells(comparison, name)[table["position"]] >= 0] if paired else table

    @cache
    def bins() -> pd.DataFrame:
        rows = []
        for name in "AB":
            counts, _ = np.histogram(np.clip(tokens(name)[view.score], bottom, top), edges)
            share = counts / max(1, counts.sum())
            rows.append(
                pd.DataFrame({"model": name, "from": edges[:-1], "to": edges[1:], "tokens": counts, "share": share})
            )
        return pd.concat(rows, ignore_index=True).assign(unit=view.shown.unit(view.unit))

    def make() -> go.Figure:
        figure = go.Figure()
        for name, side, color in _sides(comparison, view):
            for value in _pinned_values(tokens(name), view):
                line = {"color": color, "width": 2, "dash": "dot"}
                figure.add_vline(x=float(np.clip(value, bottom, top)), line=line)
            figure.add_trace(
                go.Bar(
                    x=(edges[:-1] + edges[1:]) / 2,
                    y=bins().loc[bins()["model"] == name, "share"],
                    width=np.diff(edges),
                    name=f"{name} {safe(side.facts.name)}",
                    marker={"color": color, "opacity": 0.55},
                    hovertemplate=f"%{{x:.3g}}<br>%{{y:.1%}} of tokens<extra>{name}</extra>",
                )
            )
        figure.update_xaxes(title=view.axis)
        figure.update_yaxes(title="share of tokens", tickformat=".0%")
        return styled(figure, view.theme, 380)

    return Figure(
        "distribution",
        "Distribution",
        f"Share of each model's tokens{', of the text that both scored,' if paired else ''} in {BINS} equal bins of "
        f"{view.shown.title}; the bins at the ends also hold all values beyond.",
        make,
        bins,
    )


def changes(comparison: Comparison, view: View) -> Figure:
    """The pieces of text that changed most from A to B, by the measure that is shown."""
    change = view.change

    @cache
    def table() -> pd.DataFrame:
        cells = changed_cells(comparison, view)
        return cells.iloc[largest(cells[change.name].to_numpy())].reset_index(drop=True)

    def make() -> go.Figure:
        data, sign = table(), -1 if change.falls else 1
        shown = data[change.name]
        figure = go.Figure(
            go.Bar(
                x=shown,
                y=np.arange(len(data)),
                orientation="h",
                marker={"color": np.where(sign * shown > 0, ORANGE[view.theme], BLUE[view.theme])},
                hovertemplate=f"%{{x:{'+' if change.signed else ''}.3g}}<extra></extra>",
            )
        )
        figure.update_xaxes(title=f"{change.title}, {change.unit(view.unit)}")
        figure.update_yaxes(
            tickvals=np.arange(len(data)),
            ticktext=[f"{safe(text, 24)} @{start}" for text, start in zip(data["text"], data["start"], strict=True)],
            autorange="reversed",
        )
        return styled(figure, view.theme, 120 + 20 * len(data))

    return Figure(
        "changes",
        "What changed most",
        f"The pieces of text (at most {CHANGES}) with the largest {change.title}, whatever its sign. The number after "
        "@ is the character where a piece starts.",
        make,
        table,
    )


def side_table(side: ScoredText, view: ScoreView) -> pd.DataFrame:
    """One model's scored content (or the tokens that it wrote), with `x`, the place in the figure."""
    table = token_table(side, view.unit)
    table["start"], table["end"] = side.encoded.source_start, side.encoded.source_end
    if side.generated:
        table = table[side.own].assign(x=np.arange(int(side.own.sum())))
    else:
        table = table[side.content]
        table = table.assign(x=(table["start"] + table["end"]) / 2)
    return table if view.role == "all" else table[table["role"] == view.role]


def token_cells(comparison: Comparison, side: str) -> NDArray[np.int64]:
    """The cell of each token of a side if both models read one text; -1: in no cell."""
    assert comparison.cells is not None
    return comparison.cells.token_cell_a if side == "A" else comparison.cells.token_cell_b


def _with_gap(table: pd.DataFrame, cells: pd.DataFrame, cell: NDArray[np.int64], view: View) -> pd.DataFrame:
    """Put each cell's difference at its first token, so that the column sums to the total difference."""
    name = f"{view.score}_difference"
    own = pd.Series(cell[table["position"]], index=table.index)
    gap = own.map(cells[name]).where(~own.duplicated())
    return table.assign(**{name: gap})


def _pinned_values(table: pd.DataFrame, view: View) -> list[float]:
    """The scores of the tokens at the pinned character; none if each model wrote its own text."""
    if view.pinned is None or (table["start"] < 0).any():
        return []
    return list(table.loc[(table["start"] <= view.pinned) & (view.pinned < table["end"]), view.score])


def _less_sure(view: View) -> int:
    """The sign of a difference that means "B is less sure"."""
    return -1 if view.shown.falls else 1


def _sides(comparison: Comparison, view: View) -> tuple[tuple[str, ScoredText, str], ...]:
    return (("A", comparison.a, ORANGE[view.theme]), ("B", comparison.b, BLUE[view.theme]))


FIGURES: dict[str, Callable[[Comparison, View], Figure]] = {
    "strip": strip,
    "line": line,
    "scatter": scatter,
    "distribution": distribution,
    "changes": changes,
    "next": next_tokens,
}
PAIRED = ("scatter", "changes", "next")  # figures that need one text that both models read


def check_name(name: str, paired: bool, lens: str = "both") -> None:
    """Raise MicroStepError, before heavy work, if the figure does not exist or needs a text that both models read."""
    check_figure(name, FIGURES)
    if (name in PAIRED or (name == "strip" and lens == "change")) and not paired:
        raise MicroStepError(f"the figure {name!r} needs one text that both models read; continuations are two texts")


def draw(name: str, comparison: Comparison, view: View) -> Figure:
    """Draw a figure by name.

    Raises:
        MicroStepError: no figure has this name, or it cannot be drawn for two continuations.
    """
    check_name(name, comparison.cells is not None, view.lens)
    return FIGURES[name](comparison, view)
