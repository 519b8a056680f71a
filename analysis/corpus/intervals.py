"""Intervals over the documents of a corpus, from counts per document: nothing is counted again for a resample.

Documents are drawn with replacement (Efron 1979). A corpus of very few documents, a novel for instance, is resampled by
its windows instead, in circular blocks of n^(1/3), since neighbouring windows are not independent (Politis and Romano
1992). Of a very large corpus, runs of neighbouring documents are drawn together, to bound memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.bootstrap import LEVEL, RESAMPLES, Estimate

Floats = NDArray[np.float64]
FEWEST_DOCUMENTS = 8  # with fewer, windows are drawn instead
MOST_UNITS = 1000


@dataclass(frozen=True)
class Units:
    """Which rows are drawn together."""

    of_row: NDArray[np.int64]  # [R] the unit of each row
    count: int
    kind: str  # what a unit is, in the plural
    block: int  # neighbouring units that are drawn together

    @classmethod
    def of(cls, document: NDArray[np.int32]) -> Units:
        """The units of R rows.

        Args:
            document: [R] number of each row's document.
        """
        _, which = np.unique(document, return_inverse=True)
        count = int(which.max(initial=-1)) + 1
        kind, block = "documents", 1
        if count < FEWEST_DOCUMENTS and len(document) > count:
            which, count, kind = np.arange(len(document)), len(document), "windows"
            block = max(1, round(count ** (1 / 3)))
        if count > MOST_UNITS:
            together = -(-count // MOST_UNITS)
            which, kind = which // together, f"runs of {together} {kind}"
            count = int(which.max()) + 1
        return cls(which.astype(np.int64), count, kind, block)

    @property
    def meaning(self) -> str:
        """One sentence for captions and notes: what the intervals are over."""
        blocks = f" in blocks of {self.block}" if self.block > 1 else ""
        rough = ", too few for more than a rough one" if self.count < FEWEST_DOCUMENTS else ""
        return f"95% bootstrap over {self.count:,} {self.kind}{blocks}{rough}"

    def sums(self, per_row: NDArray[np.generic]) -> Floats:
        """[U, ...] sums of [R, ...] over the rows of each unit."""
        found = np.zeros((self.count, *per_row.shape[1:]))
        np.add.at(found, self.of_row, per_row)
        return found

    @cached_property
    def weights(self) -> Floats:
        """[RESAMPLES, U] how often each unit is drawn."""
        if self.count < 2:
            return np.full((RESAMPLES, self.count), np.nan)  # there is nothing to tell an interval from
        draws = np.random.default_rng(0).integers(0, self.count, (RESAMPLES, -(-self.count // self.block)))
        drawn = (draws[:, :, None] + np.arange(self.block)).reshape(RESAMPLES, -1)[:, : self.count] % self.count
        flat = drawn + np.arange(RESAMPLES)[:, None] * self.count
        counted = np.bincount(flat.reshape(-1), minlength=RESAMPLES * self.count)
        return counted.reshape(RESAMPLES, self.count).astype(np.float64)

    def resampled(self, per_unit: Floats) -> Floats:
        """[1 + RESAMPLES, ...] sums of [U, ...] over all units, and over each resample."""
        flat = per_unit.reshape(self.count, -1)
        return np.concatenate([flat.sum(0)[None], self.weights @ flat]).reshape(-1, *per_unit.shape[1:])


@dataclass(frozen=True)
class Estimates:
    """An array of means with their intervals."""

    mean: Floats  # [...]
    low: Floats  # [...]
    high: Floats  # [...]

    def at(self, *index: int) -> Estimate:
        """One of them."""
        return Estimate(float(self.mean[index]), float(self.low[index]), float(self.high[index]))


def estimates(draws: Floats) -> Estimates:
    """Estimates of [1 + RESAMPLES, ...]: a statistic of the whole, and of each resample; NaN resamples do not count."""
    mean, resampled = draws[0], draws[1:]
    with np.errstate(all="ignore"):
        real = np.isfinite(resampled)
        enough = real.any(0)
        filled = np.where(enough, resampled, 0.0)
        low, high = np.nanquantile(np.where(real | ~enough, filled, np.nan), [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    return Estimates(mean, np.where(enough, low, np.nan), np.where(enough, high, np.nan))


def quotient(total: Floats, weight: Floats, empty: float = float("nan")) -> Floats:
    """Total / weight; `empty` where there is no weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weight == 0, empty, total / weight)
