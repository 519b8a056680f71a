"""Accuracy and NLL per micro position: the base predicts position 0 of a segment, the micro decoder the others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from analysis.intervals import SHARE, Estimate, of_error
from analysis.runs.curves import SPLITS, joined, series
from analysis.runs.log import RunLog
from analysis.score_registry import PER_NAT, Unit
from data.run_folder import LogLine

Measure = Literal["accuracy", "nll"]
MEASURES: dict[Measure, str] = {"accuracy": "accuracy", "nll": "NLL"}
LAST = (
    "run", "split", "stage", "step", "position", "predicted_by", "tokens",
    "accuracy", "accuracy_low", "accuracy_high", "nll",
)  # fmt: skip
OVER = (
    "measure", "position", "run", "split", "stage", "step", "seen", "seconds", "tokens", "value", "smoothed", "unit",
)  # fmt: skip


def accuracy(line: LogLine, position: int | None = None) -> Estimate:
    """The accuracy with its 95% interval over validation rows; older logs and training lines have no interval.

    Args:
        line: a line of a log.
        position: a micro position; all of them if None.
    """
    share = line.accuracy if position is None else line.position_accuracy[position]
    place = 0 if position is None else 1 + position
    if share is None or place >= len(line.row_counts):
        return Estimate(math.nan if share is None else share, math.nan, math.nan)
    return of_error(share, line.accuracy_errors[place], line.row_counts[place], SHARE)


def judged(run: RunLog) -> LogLine | None:
    """The line by which a run is judged: the last validation, or the last training line without one."""
    return run.last("validation") or run.last("train")


def position_table(runs: Sequence[RunLog], unit: Unit = "nats") -> pd.DataFrame:
    """A row for each run and position at its last validation: NLL in `unit`, accuracy with its 95% interval."""
    rows = []
    for run in runs:
        line = judged(run)
        for position in range(len(line.position_tokens) if line else 0):
            assert line is not None
            count = line.position_tokens[position]
            share, loss = line.position_accuracy[position], line.position_loss[position]
            if not count or share is None or loss is None:
                continue
            who = "base" if position == 0 else "micro decoder"
            given = (run.name, line.split, line.stage, line.step, position, who, count)
            told = accuracy(line, position)
            rows.append((*given, share, told.low, told.high, loss * PER_NAT[unit]))
    return pd.DataFrame(rows, columns=list(LAST)).assign(unit=unit)


def position_curve_table(runs: Sequence[RunLog], measure: Measure, unit: Unit, smoothing: float) -> pd.DataFrame:
    """A row for each point: a measure at each position over the log; `tokens` counts those of the position."""
    scale, named = (PER_NAT[unit], unit) if measure == "nll" else (1.0, "share")
    parts = []
    for position in range(max((run.positions for run in runs), default=0)):
        for run in runs:
            for split in SPLITS:
                lines = [line for line in run.of(split) if len(line.position_tokens) > position]
                name = "position_accuracy" if measure == "accuracy" else "position_loss"
                logged = [getattr(line, name)[position] for line in lines]
                values = np.array([math.nan if value is None else value * scale for value in logged])
                weights = np.array([line.position_tokens[position] for line in lines], dtype=np.float64)
                table = series(run, lines, values, weights, smoothing if split == "train" else 0.0)
                if table is not None:
                    counts = weights[~np.isnan(values)].astype(int)
                    parts.append(table.assign(measure=measure, position=position, tokens=counts, unit=named))
    return joined(parts, OVER)
