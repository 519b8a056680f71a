"""The difference between two runs of a benchmark, paired by document.

The spread between documents cancels in a paired difference, so its interval is narrower than the errors of the two
scores suggest.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.intervals import Estimate, Units, quotient
from evals.aggregate import EXPONENTIATED
from evals.report.side_by_side import KEYS, SideBySide, value
from evals.samples import Sample


@dataclass(frozen=True)
class Difference:
    """One score of two runs, on the documents that both answered."""

    score: str
    documents: int
    a: float
    b: float
    gap: Estimate  # B - A
    better: int  # number of documents on which B is better
    worse: int

    @property
    def spoken(self) -> str:
        interval = f"95% interval {self.gap.ends()}" if self.gap.known else "too few of them differ for an interval"
        return (
            f"B minus A in {self.score}, on the same {self.documents:,} documents: {self.gap.mean:+.3g} ({interval});"
            f" B is better on {self.better:,} and worse on {self.worse:,}."
        )


def difference(comparison: SideBySide) -> Difference | None:
    """Return B minus A over the documents that both runs have; None for a single run or without common documents.

    Documents are the same if the runs used the same data, or else if their prompts are equal.
    """
    if len(comparison.sides) < len(KEYS):
        return None
    pairs = [
        (a, b)
        for a, b in (comparison.of(number) for number in comparison.documents())
        if a is not None and b is not None and comparison.score in a.scores and comparison.score in b.scores
        if comparison.alike or (a.prompt and a.prompt == b.prompt)
    ]
    if not pairs:
        return None
    sums = np.array([[*_parts(a, comparison.score), *_parts(b, comparison.score)] for a, b in pairs], dtype=np.float64)
    units = Units.in_runs(len(sums), "documents")
    per_unit = units.sums(sums)
    left = units.left_out(per_unit)
    of_a, of_b = (_figure(left[:, i], left[:, i + 1], comparison.score) for i in (0, 2))
    gap = units.estimates(of_b - of_a, (per_unit[:, 1] + per_unit[:, 3]) / 2).at()
    sign = 1 if comparison.benchmark.higher_is_better else -1
    changes = [sign * (value(b, comparison.score) - value(a, comparison.score)) for a, b in pairs]
    return Difference(
        comparison.score,
        len(pairs),
        float(of_a[0]),
        float(of_b[0]),
        gap,
        sum(change > 0 for change in changes),
        sum(change < 0 for change in changes),
    )


def _parts(sample: Sample, score: str) -> tuple[float, float]:
    """Return numerator and denominator of a document's score."""
    given = sample.scores[score]
    return (given[0], given[1]) if isinstance(given, tuple) else (float(given), 1.0)


def _figure(total: NDArray[np.float64], weight: NDArray[np.float64], score: str) -> NDArray[np.float64]:
    ratio = quotient(total, weight)
    return np.exp(ratio) if score in EXPONENTIATED else ratio
