"""The four numbers that say how training is going: the run with the lowest validation loss, and the run under way.

Runs are compared by nats per token, since the full loss has other parts and weights in each recipe. Runs on other data
are not compared, nor is a draft model with a model that writes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from analysis.intervals import Estimate
from analysis.runs.log import RunLog
from analysis.runs.positions import accuracy, judged
from data.run_folder import LogLine


@dataclass(frozen=True)
class RunsSummary:
    """The numbers above the curves."""

    best: RunLog  # the compared run with the fewest nats per token at its last validation (or training) line
    line: LogLine
    accuracy: Estimate  # accuracy of the best run, over validation rows
    under_way: RunLog  # the first running run, or the best one if none is running
    compared: int  # number of compared runs
    apart: int  # number of runs that cannot be compared with it

    @property
    def validated(self) -> bool:
        return self.line.split == "validation"


def summarise(runs: Sequence[RunLog]) -> RunsSummary | None:
    """The summary of some runs; None if nothing is logged."""
    lines = [(run, line) for run in runs if (line := judged(run)) is not None]
    if any(line.split == "validation" for _, line in lines):
        lines = [(run, line) for run, line in lines if line.split == "validation"]
    if not lines:
        return None
    alike = [(run, line) for run, line in lines if _yardstick(run) == _yardstick(lines[0][0])]
    best, line = min(alike, key=lambda pair: pair[1].token_loss if math.isfinite(pair[1].token_loss) else math.inf)
    under_way = next((run for run in runs if run.state == "running"), best)
    return RunsSummary(best, line, accuracy(line), under_way, len(alike), len(lines) - len(alike))


def _yardstick(run: RunLog) -> tuple[str, bool]:
    """Runs with the same key have nats per token of the same tokens; a draft is measured at several places of each."""
    return run.facts.data_hash, run.facts.objective == "draft"


def duration(seconds: float) -> str:
    """A time in words, to its leading unit: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
