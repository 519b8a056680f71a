"""The figures of training runs: curves, micro positions, and the tables of runs and their facts."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.figure import Figure, FigureSet, safe
from analysis.figures.table_figure import table_figure
from analysis.figures.theme import styled
from analysis.intervals import Estimate
from analysis.runs.figure_style import colours
from analysis.runs.line_figures import curves, position_curves
from analysis.runs.log import RunLog
from analysis.runs.positions import position_table
from analysis.runs.tables import facts_table, runs_table, unlike
from analysis.runs.view import RunsView


def positions(runs: Sequence[RunLog], view: RunsView) -> Figure:
    """Accuracy and NLL of each micro position, at the last validation."""
    table = position_table(runs, view.unit)
    trained = sorted(set(table.loc[table["split"] == "train", "run"]))
    instead = f" No validation yet, so the last training line is shown: {', '.join(trained)}." if trained else ""
    return Figure(
        "positions",
        "Last values per micro position",
        "At the last validation: position 0 of a segment is predicted by the base, the others by the micro decoder. "
        "Bars: 95% intervals over validation rows, if the log has what they need."
        f"{instead} {unlike(runs)}".strip(),
        lambda: _draw_positions(runs, table, view),
        lambda: table,
    )


def listed(runs: Sequence[RunLog], view: RunsView) -> Figure:
    """The table of runs."""
    return Figure(
        "runs",
        "Runs",
        "According to their logs. Losses are the latest, not the best. The state is read from files; see its help.",
        lambda: table_figure(runs_table(runs, view.unit), view.theme),
        lambda: runs_table(runs, view.unit),
    )


def facts(runs: Sequence[RunLog], view: RunsView) -> Figure:
    """Facts and settings of the runs side by side."""
    return Figure(
        "facts",
        "Facts and settings",
        "What was trained on which data with which packages, and every setting of the resolved recipe.",
        lambda: table_figure(facts_table(runs), view.theme),
        lambda: facts_table(runs),
    )


def _draw_positions(runs: Sequence[RunLog], table: pd.DataFrame, view: RunsView) -> go.Figure:
    figure = make_subplots(
        rows=1, cols=2, horizontal_spacing=0.1, subplot_titles=("accuracy", f"NLL, {view.unit} per token")
    )
    known = colours(runs, view.theme)
    for i, run in enumerate(runs):
        part = table[table["run"] == run.name]
        if part.empty:
            continue
        beside = part["position"] + 0.05 * (i - (len(runs) - 1) / 2)  # so that intervals do not overlap
        said = [
            [safe(run.name, 60), split, f"{step:,}", who, f"{count:,}", Estimate(*ends).ends("{:.1%}".format)]
            for split, step, who, count, *ends in zip(
                *(part[name] for name in ("split", "step", "predicted_by", "tokens")),
                *(part[f"accuracy{end}"] for end in ("", "_low", "_high")),
                strict=True,
            )
        ]
        head = "%{customdata[0]}, %{customdata[1]} at step %{customdata[2]}<br>by the %{customdata[3]}<br>"
        tail = "<br>%{customdata[4]} tokens<extra></extra>"
        look = {
            "mode": "lines+markers",
            "line": {"color": known[run.name], "width": 2},
            "marker": {"size": 7},
            "name": safe(run.name, 30),
            "legendgroup": str(i),
            "customdata": said,
        }
        share = go.Scatter(
            x=beside,
            y=part["accuracy"],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": part["accuracy_high"] - part["accuracy"],
                "arrayminus": part["accuracy"] - part["accuracy_low"],
                "thickness": 1.5,
            },
            hovertemplate=f"{head}%{{y:.1%}}, %{{customdata[5]}}{tail}",
            **look,
        )
        nll = go.Scatter(x=beside, y=part["nll"], hovertemplate=f"{head}%{{y:.3~g}} {view.unit}{tail}", **look)
        figure.add_trace(share, row=1, col=1)
        figure.add_trace(nll.update(showlegend=False), row=1, col=2)
    figure = styled(figure, view.theme, 360)
    figure.update_xaxes(title="micro position", dtick=1)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(tickformat=".0%", row=1, col=1)
    figure.update_annotations(font={"size": 13})
    figure.update_layout(showlegend=True, uirevision="runs", legend={"y": 1.12})
    return figure


FIGURES = FigureSet(
    {
        "curves": curves,
        "positions": positions,
        "position_curves": position_curves,
        "runs": listed,
        "facts": facts,
    }
)
draw = FIGURES.draw
