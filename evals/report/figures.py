"""A benchmark's score with its standard error against tokens per macro step, and the report as a table.

A micro_step model is a line through its values of tau; a plain model, which writes one token a step, is a horizontal
line with its band. Where there is none, the micro_step model's own base is: tau above 1.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from analysis.export import image, page
from analysis.figures.figure import Figure
from analysis.figures.table_figure import table_figure
from analysis.figures.theme import SERIES, SOFT, styled
from analysis.view import Theme
from evals.benchmark import Benchmark, Judge
from evals.report.score_rows import ScoreRow
from evals.report.tables import TITLES, lines, notes, score_table, with_error
from model.atomic_files import atomic_write
from model.errors import ExportError
from model.terminal import one_line

Format = Literal["html", "svg", "png", "pdf"]
_HEIGHT = 400
_DASHES = ("dash", "dot", "dashdot")  # of plain models
_SHARE = 100  # scores that are shares are drawn as percentages
_COUNTED: dict[Judge, str] = {
    "gsm8k": "right answers",
    "choices": "right choices",
    "letter": "right letters",
    "humaneval": "programs that pass",
    "mbpp": "programs that pass",
    "ifeval": "prompts followed",
    "tokens": "right tokens",
}


def report(rows: Sequence[ScoreRow], theme: Theme = "light") -> Figure:
    """Every score that a table shows, of every benchmark."""
    return Figure(
        "report",
        "Scores, and what they cost",
        f"Every benchmark under every model and tau. {notes(rows)[0]}",
        lambda: table_figure(reading_table(rows), theme),
        lambda: score_table(rows),
    )


def reading_table(rows: Sequence[ScoreRow]) -> pd.DataFrame:
    """The report as a reader sees it, in words."""
    return pd.DataFrame(lines(rows), columns=list(TITLES))


def score(rows: Sequence[ScoreRow], theme: Theme = "light") -> Figure:
    """The score of one benchmark over tokens per macro step.

    Args:
        rows: of the same benchmark.
        theme: colours.
    """
    benchmark = rows[0].benchmark
    return Figure(
        f"score_{benchmark.name}",
        benchmark.title,
        f"Against tokens per macro step: {_counted(benchmark)}, with {_whiskers(rows)}; a point is a tau, dashed a "
        f"base alone. Asked: {benchmark.about}.",
        lambda: figure(rows, theme),
        lambda: score_table(rows),
    )


def figure(rows: Sequence[ScoreRow], theme: Theme = "light") -> go.Figure:
    """The figure of one benchmark.

    Args:
        rows: of the same benchmark.
        theme: colours.
    """
    benchmark = rows[0].benchmark
    scale, unit = (_SHARE, ", %") if benchmark.higher_is_better else (1, "")
    drawn, ink = go.Figure(), SOFT[theme]
    plain = [row for row in rows if row.tau is None]
    for i, row in enumerate(plain or [row for row in rows if row.tau is not None and row.tau > 1]):
        line = {"color": ink, "dash": _DASHES[i % len(_DASHES)]}
        drawn.add_hline(row.score.value * scale, line=line, name=_safe(row.name), showlegend=True)
        low, high = row.score.whiskers
        if high > low:
            drawn.add_hrect(low * scale, high * scale, fillcolor=ink, opacity=0.12, line_width=0)
    for i, model in enumerate(dict.fromkeys(row.model for row in rows if row.tau is not None)):
        mine = sorted(
            (row for row in rows if row.model == model and row.tau is not None), key=lambda row: -(row.tau or 0)
        )
        whiskers = [(row.score.value, *row.score.whiskers) for row in mine]
        drawn.add_scatter(
            x=[row.tokens_per_macro_step for row in mine],
            y=[row.score.value * scale for row in mine],
            error_y={
                "array": [(high - value) * scale for value, _, high in whiskers],
                "arrayminus": [(value - low) * scale for value, low, _ in whiskers],
                "thickness": 1,
            },
            text=[f"τ {row.tau:g}" for row in mine],
            textposition="top right",
            mode="lines+markers+text",
            cliponaxis=False,
            name=_safe(model),
            line={"color": SERIES[theme][i % len(SERIES[theme])]},
            customdata=[[_safe(with_error(row.score, benchmark.higher_is_better)), row.samples] for row in mine],
            hovertemplate="%{text}<br>%{customdata[0]}, %{customdata[1]:,} samples<br>%{x:.3~g} tokens per macro step",
        )
    drawn = styled(drawn, theme, _HEIGHT)
    drawn.update_layout(
        xaxis={"title": "tokens per macro step"},
        yaxis={"title": _safe(_counted(benchmark)) + unit, "rangemode": "nonnegative"},
        showlegend=True,
    )
    most = max(row.tokens_per_macro_step for row in rows)
    drawn.update_xaxes(range=[0.95, 1 + 1.2 * (most - 1)] if most > 1 else [0.5, 2])  # room for the last name
    return drawn


def _counted(benchmark: Benchmark) -> str:
    """What the score counts, and its name."""
    counted = _COUNTED.get(benchmark.judge)
    return f"{counted} ({benchmark.metric})" if counted else benchmark.metric.replace("_", " ")


def _whiskers(rows: Sequence[ScoreRow]) -> str:
    """What error bars and bands are."""
    bounded = any(row.score.bound is not None for row in rows)
    return "one standard error" + (", or the 95% bound where none or all are right" if bounded else "")


def _safe(text: str) -> str:
    """Plotly reads labels as HTML."""
    return html.escape(one_line(text), quote=False)


def write_figures(rows: Sequence[ScoreRow], folder: Path, kind: Format) -> list[Path]:
    """Write a figure of each benchmark into a folder, made if it is not there.

    Raises:
        ExportError: the folder cannot be written, or there is no Chrome to draw an image with.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be made: {error.strerror}") from None
    out = []
    for name in dict.fromkeys(row.benchmark.name for row in rows):
        mine = [row for row in rows if row.benchmark.name == name]
        drawn = score(mine)
        fewest, most = min(row.samples for row in mine), max(row.samples for row in mine)
        samples = f"{fewest:,} samples" if fewest == most else f"{fewest:,} to {most:,} samples"
        told = f"{samples}; whiskers and bands: {_whiskers(mine)}"
        title = {"text": _safe(drawn.title), "subtitle": {"text": told}, "y": 0.95, "yanchor": "top"}
        drawn.figure.update_layout(title=title, margin={"t": 110})
        path = folder / f"{name}.{kind}"
        atomic_write(path, page(drawn).encode() if kind == "html" else image(drawn.figure, kind))
        out.append(path)
    return out
