"""Shared by the figures of training runs: colours, vertical lines for stages, and thinning of many points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.figures.figure import safe
from analysis.figures.theme import SERIES, SOFT
from analysis.runs.curves import COLUMN, Axis
from analysis.runs.log import RunLog
from analysis.view import Theme

MOST_POINTS = 800  # points in a line of a figure
LINE_HEIGHT = 14  # characters of a stage's name
Ints = NDArray[np.int64]


def colours(runs: Sequence[RunLog], theme: Theme) -> dict[str, str]:
    """The colour of each run, in all figures."""
    known = SERIES[theme]
    return {run.name: known[i % len(known)] for i, run in enumerate(runs)}


def thinned(values: NDArray[np.float64], most: int = MOST_POINTS) -> Ints:
    """Which of N points to draw: all; or the first, the last, and the smallest and largest of each stretch."""
    count = len(values)
    if count <= most:
        return np.arange(count)
    edges = np.linspace(0, count, most // 2 + 1).astype(int)
    real = np.where(np.isfinite(values), values, np.nan)
    kept = {0, count - 1}
    for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        part = real[a:b]
        kept |= {a, b - 1} if np.isnan(part).all() else {a + int(np.nanargmin(part)), a + int(np.nanargmax(part))}
    return np.array(sorted(kept))


def many(table: pd.DataFrame) -> str:
    """A note for the caption if some points are not drawn."""
    groups = [name for name in ("curve", "group", "measure", "position", "run", "split") if name in table]
    longest = int(table.groupby(groups, dropna=False).size().max()) if len(table) else 0
    return (
        " In long lines, only the smallest and largest value of each stretch are drawn."
        if longest > MOST_POINTS
        else ""
    )


def where(run: RunLog, step: int, x: Axis) -> float:
    """The place on an axis of the end of a step."""
    if x == "step":
        return float(step)
    lines = run.of("train") or run.lines
    steps = [0, *(line.step for line in lines)]
    values = [0.0, *(float(getattr(line, COLUMN[x])) for line in lines)]
    return float(np.interp(step, steps, values))


def mark_stages(figure: go.Figure, runs: Sequence[RunLog], x: Axis, theme: Theme, panels: int = 1) -> None:
    """A vertical line at the start of each stage with its name above; none for runs with one stage."""
    begins: dict[tuple[str, float], list[RunLog]] = {}
    staged = [run for run in runs if len(run.facts.stages) > 1]
    for run in staged:
        for stage in run.facts.stages:
            if stage.first == 1 or stage.first <= run.steps:
                at = float(f"{where(run, stage.first - 1, x):.5g}")
                begins.setdefault((stage.name, at), []).append(run)
    known, rows = colours(runs, theme), dict[float, int]()
    for (name, at), whose in begins.items():
        color = known[whose[0].name] if len(whose) == 1 and len(staged) > 1 else SOFT[theme]
        for row in range(1, panels + 1) if at > 0 else ():
            figure.add_vline(x=at, line={"color": color, "width": 1, "dash": "dot"}, row=row, col=1)
        rows[at] = rows.get(at, -1) + 1
        figure.add_annotation(
            x=at,
            y=1,
            xref="x",
            yref="y domain",
            text=safe(name),
            showarrow=False,
            xanchor="left",
            yanchor="top",
            xshift=3,
            yshift=-LINE_HEIGHT * rows[at],
            font={"color": color, "size": 11},
        )


def points(table: pd.DataFrame) -> list[list[object]]:
    """Hover data of each row, escaped: run, split, stage, step, seen, tokens, value, smoothed."""
    said = {word: safe(word, 60) for name in ("run", "stage") for word in table[name].unique()}
    return [
        [said[run], split, said[stage], f"{step:,}", f"{seen:,}", f"{tokens:,}", value, smoothed]
        for run, split, stage, step, seen, tokens, value, smoothed in zip(
            *(table[name] for name in ("run", "split", "stage", "step", "seen", "tokens", "value", "smoothed")),
            strict=True,
        )
    ]


def hover(what: str, form: str, smoothed: bool) -> str:
    """The hover template for the data of `points`."""
    value = f"{what} %{{customdata[7]:{form}}} smoothed, %{{customdata[6]:{form}}} logged" if smoothed else (
        f"{what} %{{customdata[6]:{form}}}"
    )  # fmt: skip
    return (
        f"%{{customdata[0]}}, %{{customdata[1]}}<br>{value}<br>step %{{customdata[3]}}, stage %{{customdata[2]}}<br>"
        "%{customdata[4]} labelled tokens seen, %{customdata[5]} measured<extra></extra>"
    )
