"""Lines of training runs: one panel per curve or micro position; raw lines are faint, validations have marks."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.figure import Figure, safe
from analysis.figures.theme import styled
from analysis.runs.curves import AXES, COLUMN, CURVES, curve_table
from analysis.runs.figure_style import colours, hover, many, mark_stages, points, thinned
from analysis.runs.log import RunLog
from analysis.runs.positions import position_curve_table
from analysis.runs.tables import unlike
from analysis.runs.view import RunsView
from data.run_folder import Split

FIRST_PANEL, PANEL = 380, 260  # pixels
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS: dict[Split, str] = {"train": "circle", "validation": "diamond"}


def curves(runs: Sequence[RunLog], view: RunsView) -> Figure:
    """The chosen curves, one panel each, over the same axis."""
    shown = [CURVES[name] for name in view.curves]
    titles = ", ".join(each.title for each in shown)
    table = curve_table(runs, view.curves, view.unit, view.smoothing)
    missing = [each.title for each in shown if not (table["curve"] == each.name).any()]
    nothing = f" Missing in these logs: {', '.join(missing)}." if missing else ""
    return Figure(
        "curves",
        titles[:1].upper() + titles[1:],
        f"Over {AXES[view.x]}, as logged. {_smoothing(view)} Dashed with marks: validation."
        f"{many(table)}{nothing} {unlike(runs)}".strip(),
        lambda: _draw_curves(runs, table, view),
        lambda: table,
    )


def position_curves(runs: Sequence[RunLog], view: RunsView) -> Figure:
    """Accuracy or NLL over the log, one panel for each micro position."""
    table = position_curve_table(runs, view.measure, view.unit, view.smoothing)
    what = (
        "Share of tokens that the model finds likeliest"
        if view.measure == "accuracy"
        else f"Mean −ln p, in {view.unit}"
    )
    return Figure(
        "position_curves",
        f"{'Accuracy' if view.measure == 'accuracy' else 'NLL'} per micro position",
        f"{what}, over {AXES[view.x]}. The base predicts position 0 of a segment, the micro decoder the others. "
        f"{_smoothing(view)} Dashed with marks: validation.{many(table)} {unlike(runs)}".strip(),
        lambda: _draw_positions(runs, table, view),
        lambda: table,
    )


def _smoothing(view: RunsView) -> str:
    if not view.smoothing:
        return "Not smoothed."
    return f"Training is smoothed by {view.smoothing:g}, weighted by tokens; faint: each line of the log."


def _draw_curves(runs: Sequence[RunLog], table: pd.DataFrame, view: RunsView) -> go.Figure:
    count = len(view.curves)
    height = FIRST_PANEL + PANEL * (count - 1)
    figure = make_subplots(
        rows=count, cols=1, shared_xaxes=True, vertical_spacing=min(0.12, 34 / height),
        row_heights=[FIRST_PANEL - 110, *[PANEL - 30] * (count - 1)] if count > 1 else None,
    )  # fmt: skip
    named: set[str] = set()
    for row, name in enumerate(view.curves, 1):
        shown = CURVES[name]
        part = table[table["curve"] == name]
        form = ".1%" if shown.kind == "share" else ".3~g"
        unit = shown.unit(view.unit)
        what = f"{shown.title}, {unit}" if unit and shown.kind != "share" else shown.title
        for i, group in enumerate(dict.fromkeys(part["group"])):
            lines = part[part["group"] == group]
            dash = DASHES[i % len(DASHES)] if shown.kind == "rate" else None
            _lines(figure, runs, lines, view, (what, form, group, dash), named, (row, 1), raw=shown.kind != "rate")
        figure.update_yaxes(title={"text": what, "font": {"size": 12}}, row=row, col=1)
        if shown.kind == "share":
            figure.update_yaxes(tickformat=".0%", row=row, col=1)
        if shown.kind == "rate":
            figure.update_yaxes(tickformat=".1~e", row=row, col=1)
        if shown.log and view.log:
            figure.update_yaxes(type="log", dtick=1 if shown.kind == "rate" else "D2", row=row, col=1)
    mark_stages(figure, runs, view.x, view.theme, count)
    figure = styled(figure, view.theme, height)
    figure.update_xaxes(title=AXES[view.x], row=count, col=1)
    return _kept(figure)


def _draw_positions(runs: Sequence[RunLog], table: pd.DataFrame, view: RunsView) -> go.Figure:
    places = sorted(set(table["position"])) or [0]
    columns = 2 if len(places) > 1 else 1
    count = -(-len(places) // columns)
    height = 70 + 250 * count
    figure = make_subplots(
        rows=count,
        cols=columns,
        shared_xaxes=True,
        shared_yaxes="all",
        horizontal_spacing=0.04,
        vertical_spacing=min(0.2, 40 / height),
        subplot_titles=[f"position {place}, {'base' if place == 0 else 'micro decoder'}" for place in places],
    )
    named: set[str] = set()
    share = view.measure == "accuracy"
    what, form = ("accuracy", ".1%") if share else (f"NLL, {view.unit}", ".3~g")
    for i, place in enumerate(places):
        part = table[table["position"] == place]
        cell = i // columns + 1, i % columns + 1
        _lines(figure, runs, part, view, (what, form, "", None), named, cell, raw=True)
    figure = styled(figure, view.theme, height)
    figure.update_annotations(font={"size": 12})
    figure.update_layout(legend={"y": 1 + 26 / height})  # above the titles of the panels
    figure.update_yaxes(tickformat=".0%" if share else None, rangemode="tozero" if share else "normal")
    if view.log and not share:
        figure.update_yaxes(type="log", dtick="D2")
    figure.update_yaxes(title={"text": what, "font": {"size": 12}}, col=1)
    figure.update_xaxes(title=AXES[view.x], row=count)
    return _kept(figure)


def _lines(
    figure: go.Figure,
    runs: Sequence[RunLog],
    table: pd.DataFrame,
    view: RunsView,
    words: tuple[str, str, str, str | None],
    named: set[str],
    cell: tuple[int, int],
    raw: bool,
) -> None:
    """The lines of all runs in one panel.

    Args:
        figure: the figure to draw into.
        runs: in the order of their colours.
        table: the points of the panel.
        view: how curves are drawn.
        words: name and format of the value, its parameter group, and the dash of the line.
        named: entries that the legend has already, since it serves all panels.
        cell: row and column of the panel.
        raw: whether unsmoothed values are drawn faintly.
    """
    what, form, group, dash = words
    for i, run in enumerate(runs):
        color = colours(runs, view.theme)[run.name]
        for split in SYMBOLS:
            part = table[(table["run"] == run.name) & (table["split"] == split)]
            if part.empty:
                continue
            smooth = raw and split == "train" and view.smoothing > 0
            if smooth:
                kept = part.iloc[thinned(part["value"].to_numpy(float))]
                faint = go.Scatter(
                    x=kept[COLUMN[view.x]], y=kept["value"], mode="lines", line={"color": color, "width": 1},
                    opacity=0.35, hoverinfo="skip", showlegend=False, legendgroup=f"{i} {split}",
                )  # fmt: skip
                figure.add_trace(faint, row=cell[0], col=cell[1])
            kept = part.iloc[thinned(part["smoothed" if smooth else "value"].to_numpy(float))]
            label = f"{safe(run.name, 30)}, {safe(group) if group else split}"
            few = split == "validation" or len(kept) < 2
            figure.add_trace(
                go.Scatter(
                    x=kept[COLUMN[view.x]],
                    y=kept["smoothed" if smooth else "value"],
                    mode="lines+markers" if few else "lines",
                    line={"color": color, "width": 2, "dash": dash or ("dash" if split == "validation" else "solid")},
                    marker={"size": 7, "symbol": SYMBOLS[split]},
                    name=label,
                    legendgroup=f"{i} {safe(group) if group else split}",
                    showlegend=label not in named,
                    customdata=points(kept),
                    hovertemplate=hover(f"{safe(group)} {what}".strip(), form, smooth),
                ),
                row=cell[0],
                col=cell[1],
            )
            named.add(label)


def _kept(figure: go.Figure) -> go.Figure:
    """Keep the reader's zoom over a redraw, and show a legend even for one run."""
    figure.update_xaxes(rangemode="tozero")
    figure.update_layout(uirevision="runs", showlegend=True)
    return figure
