"""The curves of training runs: the registry, smoothing, and tables.

Smoothing is an exponential moving average over the lines of a log, corrected for its start, with each line weighted by
the number of tokens (or segment ends) that it averages. After lines 1..n with values x, weights w and smoothing b,

    s_n = sum_i b^(n-i) w_i x_i  /  sum_i b^(n-i) w_i

so s_1 = x_1, equal values stay the same, and b = 0 changes nothing. A value that is missing or not finite has no
weight, and stays missing. Validations are not smoothed, since each is over the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from analysis.runs.log import RunLog
from analysis.score_registry import PER_NAT, Unit
from data.run_folder import LogLine, Split
from model.arguments import check_choice
from model.errors import MicroStepError

Floats = NDArray[np.float64]
Axis = Literal["step", "tokens", "seconds"]
AXES: dict[Axis, str] = {"step": "step", "tokens": "labelled tokens seen", "seconds": "seconds of training"}
COLUMN: dict[Axis, str] = {"step": "step", "tokens": "seen", "seconds": "seconds"}
SPLITS: tuple[Split, ...] = ("train", "validation")
MOST_SMOOTHING = 0.99
COLUMNS = ("curve", "group", "run", "split", "stage", "step", "seen", "seconds", "tokens", "value", "smoothed", "unit")


@dataclass(frozen=True)
class TrainingCurve:
    """A quantity of the log: its name, meaning and scale."""

    name: str  # the field of LogLine
    title: str
    meaning: str  # one sentence for help texts
    kind: Literal["information", "share", "rate", "other"] = "other"
    of_stops: bool = False  # a mean over segment ends, not over tokens
    weighted: bool = True  # lines are weighted by those counts in smoothing; else all weigh the same
    log: bool = False  # whether a logarithmic axis makes sense

    def unit(self, unit: Unit) -> str:
        return {"information": unit, "share": "share"}.get(self.kind, "")

    def scale(self, unit: Unit) -> float:
        return PER_NAT[unit] if self.kind == "information" else 1.0

    def weight(self, line: LogLine) -> float:
        return float(line.stops if self.of_stops else line.tokens) if self.weighted else 1.0


CURVES: dict[str, TrainingCurve] = {
    curve.name: curve
    for curve in (
        TrainingCurve(
            "loss",
            "loss",
            "The loss that training minimises: the token loss plus the weighted losses of stops and teacher.",
            "information",
            log=True,
        ),
        TrainingCurve(
            "token_loss",
            "token loss",
            "Mean −ln p of the labelled tokens, predicted by the base or the micro decoder.",
            "information",
            log=True,
        ),
        TrainingCurve(
            "stop_loss",
            "stop loss",
            "Binary cross-entropy of the stop head: does the segment end here?",
            "information",
            of_stops=True,
            log=True,
        ),
        TrainingCurve(
            "teacher_loss",
            "teacher loss",
            "KL divergence from the base's own predictions, if the recipe asks for it.",
            "information",
            log=True,
        ),
        TrainingCurve(
            "hidden_loss",
            "states' error",
            "Relative squared error of the base's states at macro steps, compared with its states token by token.",
            "other",
            log=True,
        ),
        TrainingCurve("accuracy", "accuracy", "Share of labelled tokens that the model finds likeliest.", "share"),
        TrainingCurve(
            "stop_accuracy",
            "stop accuracy",
            "Share of places where the stop head, at threshold 0.5, is right about whether the segment ends.",
            "share",
            of_stops=True,
        ),
        TrainingCurve(
            "gradient_norm",
            "gradient norm",
            "Euclidean norm of the gradient before clipping, averaged over the steps of a line.",
            weighted=False,
            log=True,
        ),
        TrainingCurve(
            "rates",
            "learning rates",
            "The learning rate of each parameter group, at the step of the line.",
            "rate",
            weighted=False,
            log=True,
        ),
        TrainingCurve(
            "tokens_per_second",
            "training tokens per second",
            "Tokens divided by wall-clock time, including prompts but not padding, on the run's machine.",
            weighted=False,
        ),
    )
}


def check_smoothing(smoothing: float) -> None:
    """Raise MicroStepError if a smoothing is out of range."""
    if not 0 <= smoothing <= MOST_SMOOTHING:
        raise MicroStepError(f"smoothing must be from 0 to {MOST_SMOOTHING}, got {smoothing:g}")


def curve(name: str) -> TrainingCurve:
    """The curve of this name."""
    check_choice("curve", name, CURVES)
    return CURVES[name]


def smoothed(values: ArrayLike, weights: ArrayLike, smoothing: float) -> Floats:
    """[N] the moving average defined in the module's docstring.

    Args:
        values: [N], NaN if missing.
        weights: [N], not negative.
        smoothing: b.
    """
    check_smoothing(smoothing)
    given, weight = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if given.shape != weight.shape:
        raise ValueError(f"values of shape {given.shape} with weights of shape {weight.shape}")
    averages = np.full_like(given, np.nan)
    total = count = 0.0
    for i, (x, w) in enumerate(zip(given.tolist(), weight.tolist(), strict=True)):
        total, count = smoothing * total, smoothing * count
        if np.isfinite(x) and w > 0:
            total, count = total + w * x, count + w
            averages[i] = total / count
    return averages


def log_table(runs: Sequence[RunLog], unit: Unit = "nats") -> pd.DataFrame:
    """A row for each line of the logs: losses in `unit`, and a column `rate_GROUP` for each parameter group."""
    parts = []
    for run in runs:
        lines = run.lines
        shown = {
            name: [_value(getattr(line, name), each.scale(unit)) for line in lines]
            for name, each in CURVES.items()
            if name != "rates"
        }
        rates = {f"rate_{group}": [_value(line.rates.get(group), 1) for line in lines] for group in groups(lines)}
        stops = {"stops": [line.stops for line in lines]}
        parts.append(pd.DataFrame({**_places(run, lines), **shown, **stops, **rates}))
    return pd.concat(parts, ignore_index=True).assign(unit=unit) if parts else pd.DataFrame()


def groups(lines: Sequence[LogLine]) -> list[str]:
    """All parameter groups with a learning rate, in the order in which they appear."""
    return list(dict.fromkeys(group for line in lines for group in line.rates))


def curve_table(runs: Sequence[RunLog], names: Sequence[str], unit: Unit, smoothing: float) -> pd.DataFrame:
    """A row for each point of each curve: `value` in `unit`, `smoothed` value, and `group` of a learning rate."""
    parts = []
    for name in names:
        shown = curve(name)
        for run in runs:
            for split in SPLITS:
                lines, beta = run.of(split), smoothing if split == "train" else 0.0
                for group in groups(lines) if shown.kind == "rate" else [""]:
                    parts.append(_points(run, shown, lines, group, unit, beta))
    return joined(parts, COLUMNS)


def series(
    run: RunLog, lines: Sequence[LogLine], values: Floats, weights: Floats, smoothing: float
) -> pd.DataFrame | None:
    """The points of one line of a figure that have a value; None if there are none."""
    if not len(values) or np.isnan(values).all():
        return None
    table = pd.DataFrame({**_places(run, lines), "value": values, "smoothed": smoothed(values, weights, smoothing)})
    return table[~np.isnan(values)]


def joined(parts: Sequence[pd.DataFrame | None], columns: Sequence[str]) -> pd.DataFrame:
    """Concatenate tables."""
    tables = [part for part in parts if part is not None]
    return pd.concat(tables, ignore_index=True)[list(columns)] if tables else pd.DataFrame(columns=list(columns))


def unfinite(run: RunLog) -> int:
    """The number of lines whose loss is infinite or NaN: training has diverged."""
    return sum(not math.isfinite(line.loss) for line in run.lines)


def _points(
    run: RunLog, shown: TrainingCurve, lines: Sequence[LogLine], group: str, unit: Unit, smoothing: float
) -> pd.DataFrame | None:
    logged = [line.rates.get(group) if shown.kind == "rate" else getattr(line, shown.name) for line in lines]
    values = np.array([_value(value, shown.scale(unit)) for value in logged])
    weights = np.array([shown.weight(line) for line in lines])
    table = series(run, lines, values, weights, 0.0 if shown.kind == "rate" else smoothing)
    return None if table is None else table.assign(curve=shown.name, group=group, unit=shown.unit(unit))


def _places(run: RunLog, lines: Sequence[LogLine]) -> dict[str, Sequence[object]]:
    columns = {name: [getattr(line, name) for line in lines] for name in ("split", "stage", "step", "seen")}
    seconds = [float(line.seconds) for line in lines]
    return {"run": [run.name] * len(lines), **columns, "seconds": seconds, "tokens": [line.tokens for line in lines]}


def _value(given: float | None, scale: float) -> float:
    return float("nan") if given is None else given * scale
