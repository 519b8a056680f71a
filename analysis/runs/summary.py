"""The four figures that answer how training goes: of the run with the lowest validation loss, and what is under way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from analysis.runs.log import RunLog
from analysis.runs.positions import judged, wilson
from data.runs import LogLine

LAST = 20  # lines that a speed is the median of


@dataclass(frozen=True)
class Summary:
    """What stands above the curves."""

    best: RunLog  # with the lowest loss at its last validation; of its last training line where no run has one
    line: LogLine
    interval: tuple[float, float]  # 95%, of its accuracy
    speed: float | None  # tokens per second of the best: median of its last lines
    under_way: RunLog  # the first that runs; the best where none does

    @property
    def validated(self) -> bool:
        """Whether the figures are of a validation."""
        return self.line.split == "validation"


def summarise(runs: Sequence[RunLog]) -> Summary | None:
    """The summary of some runs; None where nothing is logged."""
    lines = [(run, line) for run in runs if (line := judged(run)) is not None]
    if any(line.split == "validation" for _, line in lines):
        lines = [(run, line) for run, line in lines if line.split == "validation"]
    if not lines:
        return None
    best, line = min(lines, key=lambda pair: pair[1].loss if math.isfinite(pair[1].loss) else math.inf)
    speeds = [each.tokens_per_second for each in best.of("train")[-LAST:] if each.tokens_per_second is not None]
    under_way = next((run for run in runs if run.state == "running"), best)
    return Summary(best, line, wilson(line.accuracy, line.tokens), median(speeds) if speeds else None, under_way)


def duration(seconds: float) -> str:
    """A time in words, to its leading unit: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
