"""Intervals for means over the tokens of a text, whose neighbours are not independent.

Circular block bootstrap (Politis and Romano 1992), blocks of n^(1/3) units. The statistic is a ratio of sums, so that
units may weigh differently (cells hold several tokens, or bytes).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its bootstrap interval; NaN where there is nothing to take a mean of."""

    mean: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return bool(self.low > 0 or self.high < 0)


def ratio(total: NDArray[np.floating], weight: NDArray[np.floating], seed: int = 0) -> Estimate:
    """sum(total) / sum(weight) over n units, with its interval.

    Args:
        total: [n] in the order of the text.
        weight: [n] not negative.
        seed: of the resampling.
    """
    return _interval(_ratio(total.sum(), weight.sum()), _resampled(total, weight, seed))


def difference(
    total_b: NDArray[np.floating],
    weight_b: NDArray[np.floating],
    total_a: NDArray[np.floating],
    weight_a: NDArray[np.floating],
    paired: bool = True,
    seed: int = 0,
) -> Estimate:
    """B's ratio minus A's. `paired` units are the same pieces of one text ([n] each), and are drawn together."""
    mean = _ratio(total_b.sum(), weight_b.sum()) - _ratio(total_a.sum(), weight_a.sum())
    draws = _resampled(total_b, weight_b, seed) - _resampled(total_a, weight_a, seed if paired else seed + 1)
    return _interval(float(mean), draws)


def _interval(mean: float, draws: NDArray[np.float64]) -> Estimate:
    real = draws[np.isfinite(draws)]
    if not len(real):
        return Estimate(mean, float("nan"), float("nan"))
    low, high = np.quantile(real, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(mean, float(low), float(high))


def _resampled(total: NDArray[np.floating], weight: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    """[RESAMPLES] ratios of sums over n units drawn in blocks; the same seed draws the same blocks."""
    n = len(total)
    if n < 2:
        return np.full(RESAMPLES, np.nan)
    length = max(1, round(n ** (1 / 3)))
    count = -(-n // length)
    starts = np.random.default_rng(seed).integers(0, n, (RESAMPLES, count))
    sums = []
    for values in (total, weight):
        around = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:length]]), dtype=np.float64)])
        block = around[length:] - around[:-length]
        sums.append(block[starts].sum(1))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = sums[0] / sums[1]
    return found


def _ratio(total: float, weight: float) -> float:
    return float(total) / float(weight) if weight else float("nan")
