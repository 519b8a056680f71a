"""How far two runs of a benchmark differ, document by document: what one document asks of both, it asks equally.

The spread of the documents themselves falls out of a paired difference, so that its interval is narrower than the two
scores' own errors make it look.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.intervals import Estimate, Units, quotient
from evals.aggregate import EXPONENTIATED
from evals.report.side_by_side import KEYS, SideBySide, value
from evals.samples import Sample


@dataclass(frozen=True)
class Difference:
    """One score of two runs on the documents that both answered."""

    score: str
    documents: int
    a: float
    b: float
    gap: Estimate  # B - A
    better: int  # documents on which B is better
    worse: int

    @property
    def spoken(self) -> str:
        """The difference in one sentence."""
        interval = f"95% interval {self.gap.ends()}" if self.gap.known else "too few of them differ for an interval"
        return (
            f"B minus A in {self.score}, on the same {self.documents:,} documents: {self.gap.mean:+.3g} ({interval});"
            f" B is better on {self.better:,} and worse on {self.worse:,}."
        )


def difference(beside: SideBySide) -> Difference | None:
    """B minus A over the documents that both runs have; None of a single run, or where no document is the same.

    Documents are the same where the runs were asked the same data, else where their prompts are equal.
    """
    if len(beside.sides) < len(KEYS):
        return None
    pairs = [
        (a, b)
        for a, b in (beside.of(number) for number in beside.documents())
        if a is not None and b is not None and beside.score in a.scores and beside.score in b.scores
        if beside.alike or (a.prompt and a.prompt == b.prompt)
    ]
    if not pairs:
        return None
    sums = np.array([[*_parts(a, beside.score), *_parts(b, beside.score)] for a, b in pairs], dtype=np.float64)
    units = Units.in_runs(len(sums), "documents")
    per_unit = units.sums(sums)
    left = units.left_out(per_unit)
    of_a, of_b = (_figure(left[:, i], left[:, i + 1], beside.score) for i in (0, 2))
    gap = units.estimates(of_b - of_a, (per_unit[:, 1] + per_unit[:, 3]) / 2).at()
    sign = 1 if beside.benchmark.higher_is_better else -1
    each = [sign * (value(b, beside.score) - value(a, beside.score)) for a, b in pairs]
    return Difference(
        beside.score,
        len(pairs),
        float(of_a[0]),
        float(of_b[0]),
        gap,
        sum(change > 0 for change in each),
        sum(change < 0 for change in each),
    )


def _parts(sample: Sample, score: str) -> tuple[float, float]:
    """Numerator and denominator of a document's score."""
    given = sample.scores[score]
    return (given[0], given[1]) if isinstance(given, tuple) else (float(given), 1.0)


def _figure(total: NDArray[np.float64], weight: NDArray[np.float64], score: str) -> NDArray[np.float64]:
    found = quotient(total, weight)
    return np.exp(found) if score in EXPONENTIATED else found
