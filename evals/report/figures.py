"""A benchmark's score with its standard error against tokens per macro step, and the report as a table.

A micro_step model is a line through its values of tau. A plain model, which generates one token per step, is a
horizontal line with its band; without one, the micro_step model's own base takes its place (tau above 1).
"""

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
from model.terminal import one_line

Format = Literal["html", "svg", "png", "pdf"]
_HEIGHT = 400
_DASHES = ("dash", "dot", "dashdot")  # for plain models
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
    """Return a figure of every score in a table, for every benchmark."""
    return Figure(
        "report",
        "Scores, and what they cost",
        f"Every benchmark for every model and tau. {notes(rows)[0]}",
        lambda: table_figure(reading_table(rows), theme),
        lambda: score_table(rows),
    )


def reading_table(rows: Sequence[ScoreRow]) -> pd.DataFrame:
    """Return the report as a table for readers, in words."""
    return pd.DataFrame(lines(rows), columns=list(TITLES))


def score(rows: Sequence[ScoreRow], theme: Theme = "light") -> Figure:
    """Return the score of one benchmark over tokens per macro step."""
    benchmark = rows[0].benchmark
    return Figure(
        f"score_{benchmark.name}",
        benchmark.title,
        f"Against tokens per macro step: {_counted(benchmark)}, with {_whiskers(rows)}; points: tau, dashed: a "
        f"base alone. Asked: {benchmark.about}.",
        lambda: figure(rows, theme),
        lambda: score_table(rows),
    )


def figure(rows: Sequence[ScoreRow], theme: Theme = "light") -> go.Figure:
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
        model_rows = sorted(
            (row for row in rows if row.model == model and row.tau is not None), key=lambda row: -(row.tau or 0)
        )
        whiskers = [(row.score.value, *row.score.whiskers) for row in model_rows]
        drawn.add_scatter(
            x=[row.tokens_per_macro_step for row in model_rows],
            y=[row.score.value * scale for row in model_rows],
            error_y={
                "array": [(high - value) * scale for value, _, high in whiskers],
                "arrayminus": [(value - low) * scale for value, low, _ in whiskers],
                "thickness": 1,
            },
            text=[f"τ {row.tau:g}" for row in model_rows],
            textposition="top right",
            mode="lines+markers+text",
            cliponaxis=False,
            name=_safe(model),
            line={"color": SERIES[theme][i % len(SERIES[theme])]},
            customdata=[[_safe(with_error(row.score, benchmark.higher_is_better)), row.samples] for row in model_rows],
            hovertemplate="%{text}<br>%{customdata[0]}, %{customdata[1]:,} samples<br>%{x:.3~g} tokens per macro step",
        )
    drawn = styled(drawn, theme, _HEIGHT)
    drawn.update_layout(
        xaxis={"title": "tokens per macro step"},
        yaxis={"title": _safe(_counted(benchmark)) + unit, "rangemode": "nonnegative"},
        showlegend=True,
    )
    max_tokens = max(row.tokens_per_macro_step for row in rows)
    drawn.update_xaxes(
        range=[0.95, 1 + 1.2 * (max_tokens - 1)] if max_tokens > 1 else [0.5, 2]
    )  # room for the last label
    return drawn


def _counted(benchmark: Benchmark) -> str:
    """Return the name of the score and of what it counts."""
    counted = _COUNTED.get(benchmark.judge)
    return f"{counted} ({benchmark.metric})" if counted else benchmark.metric.replace("_", " ")


def _whiskers(rows: Sequence[ScoreRow]) -> str:
    """Return the meaning of error bars and bands."""
    bounded = any(row.score.bound is not None for row in rows)
    return "one standard error" + (", or the 95% bound where none or all are right" if bounded else "")


def _safe(text: str) -> str:
    """Escape a label, since Plotly reads labels as HTML."""
    return html.escape(one_line(text), quote=False)


def write_figures(rows: Sequence[ScoreRow], folder: Path, kind: Format) -> list[Path]:
    """Write a figure of each benchmark into a folder, created if needed."""
    out = []
    for name in dict.fromkeys(row.benchmark.name for row in rows):
        benchmark_rows = [row for row in rows if row.benchmark.name == name]
        drawn = score(benchmark_rows)
        smallest, largest = min(row.samples for row in benchmark_rows), max(row.samples for row in benchmark_rows)
        samples = f"{smallest:,} samples" if smallest == largest else f"{smallest:,} to {largest:,} samples"
        subtitle = f"{samples}; whiskers and bands: {_whiskers(benchmark_rows)}"
        title = {"text": _safe(drawn.title), "subtitle": {"text": subtitle}, "y": 0.95, "yanchor": "top"}
        drawn.figure.update_layout(title=title, margin={"t": 110})
        path = folder / f"{name}.{kind}"
        atomic_write(path, page(drawn).encode() if kind == "html" else image(drawn.figure, kind))
        out.append(path)
    return out
