"""95% intervals for every number that is a mean, a ratio or another function of sums, by one method.

A number is computed from all units, and again without each unit (the jackknife). This shows how much each unit pulls at
it, and gives its variance and skewness. The width of the interval is Student's t. Three corrections keep intervals from
being too narrow if there are few units:

- *Order.* Units in the order of a text (tokens, segments, windows) depend on their neighbours. Their variance is taken
  from the K slowest cosines of the series, K = 0.3 n^(2/3), with K degrees of freedom (Mueller 2004; Lazarus, Lewis,
  Stock and Watson 2018). A short text has few cosines and so a wide interval. The interval is never narrower than for
  independent units. Documents, prompts and examples are independent: their variance is that of the jackknife.
- *Weight.* n units of unequal weight count as n_eff = (sum w)^2 / sum w^2 (Kish 1965), with n_eff - 1 degrees of
  freedom.
- *Skewness.* If the pulls are skewed to one side, Hall's transformation (1992) lengthens the interval on that side, at
  most to twice its length. It never shortens the other side.

There is no interval (NaN) for fewer than FEWEST_IN_ORDER units in order or FEWEST_DOCUMENTS independent ones, counted
by their weight, and none for a number that does not vary. If there is no true difference, at most 7% of the intervals
exclude zero, for any n and for neighbours correlated by up to 0.6 (tests/analysis/test_intervals.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from analysis.score_registry import significant

Floats = NDArray[np.float64]
LEVEL = 0.95
FEWEST_IN_ORDER = 10  # units in the order of a text, counted by their weight
FEWEST_DOCUMENTS = 3  # independent units
MOST_UNITS = 1000  # with more, neighbours are summed
NONE = "no interval"  # shown if there are too few units
_LEAST_WEIGHT = 2 + 1e-9  # independent units by their weight: two, or many of which one has nearly all the weight
_WAVES = 0.3  # K = _WAVES n^(2/3) cosines
_LONGEST = 2.0  # how many times its length by Student's t one side may have: few units say little of skewness
_FLAT = 1e-12  # as a share of the number: a smaller standard error is rounding
ANYWHERE = (-np.inf, np.inf)
SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, whose ends are NaN if there is none."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def clear(self) -> bool:
        """Whether there is an interval and it excludes zero."""
        return bool(self.low > 0 or self.high < 0)

    def columns(self, name: str) -> dict[str, float]:
        """The number as a column of a table, and the ends of its interval as `_low` and `_high` beside it."""
        return {name: self.mean, f"{name}_low": self.low, f"{name}_high": self.high}

    def ends(self, form: Callable[[float], str] = significant, lead: str = "") -> str:
        """The interval in words, after `lead`: "1.2 to 1.8", or "no interval"."""
        return f"{lead}{form(self.low)} to {form(self.high)}" if self.known else NONE

    def spoken(self, form: Callable[[float], str] = significant) -> str:
        """The number and its interval in words: "1.5 (1.2 to 1.8)"."""
        return f"{form(self.mean)} ({self.ends(form)})"


@dataclass(frozen=True)
class Estimates:
    """An array of numbers with their intervals."""

    mean: Floats  # [...]
    low: Floats  # [...]
    high: Floats  # [...]

    def at(self, *index: int) -> Estimate:
        """The number at an index."""
        return Estimate(float(self.mean[index]), float(self.low[index]), float(self.high[index]))


@dataclass(frozen=True)
class Units:
    """The unit of each of R rows; intervals are over units."""

    of_row: NDArray[np.int64]  # [R] the unit of each row
    count: int  # U
    kind: str  # what a unit is, in the plural
    in_order: bool = False  # neighbouring units may depend on each other

    @classmethod
    def of(cls, document: NDArray[np.integer]) -> Units:
        """The documents of R rows as units; the windows if there is only one document.

        Args:
            document: [R] the number of each row's document.
        """
        _, which = np.unique(document, return_inverse=True)
        if len(document) > 1 and not which.any():
            return cls.in_runs(len(document), "windows", in_order=True)
        runs = cls.in_runs(int(which.max(initial=-1)) + 1, "documents")
        return cls(runs.of_row[which], runs.count, runs.kind)

    @classmethod
    def in_runs(cls, rows: int, kind: str, in_order: bool = False) -> Units:
        """One unit per row; with very many rows, one unit per run of neighbours, to bound memory."""
        together = max(1, -(-rows // MOST_UNITS))
        of_row = np.arange(rows, dtype=np.int64) // together
        kind = kind if together == 1 else f"runs of {together} {kind}"
        return cls(of_row, int(of_row.max(initial=-1)) + 1, kind, in_order)

    def part(self, rows: slice) -> Units:
        """The units of some of the rows, of which there are as many as of all."""
        return Units(self.of_row[rows], self.count, self.kind, self.in_order)

    @property
    def meaning(self) -> str:
        """What the intervals are taken over, for captions and notes."""
        if self.count < (FEWEST_IN_ORDER if self.in_order else FEWEST_DOCUMENTS):
            return f"no intervals: {self.count:,} {self.kind} are too few"
        order = ", whose neighbours may depend on each other" if self.in_order else ""
        return f"95% intervals by Student's t over {self.count:,} {self.kind}{order}"

    def sums(self, per_row: NDArray[np.generic]) -> Floats:
        """[U, ...] sums of [R, ...] over the rows of each unit."""
        sums = np.zeros((self.count, *per_row.shape[1:]))
        np.add.at(sums, self.of_row, per_row)
        return sums

    def left_out(self, per_unit: NDArray[np.generic]) -> Floats:
        """[1 + U, ...] sums of [U, ...] over all units, and over all units but one, for each."""
        every = per_unit.astype(np.float64)
        whole = every.sum(0)
        with np.errstate(invalid="ignore"):  # a sum may be infinite
            return np.concatenate([whole[None], whole - every])

    def estimates(
        self, figure: Floats, weight: NDArray[np.generic], within: tuple[float, float] = ANYWHERE
    ) -> Estimates:
        """Numbers with their intervals.

        Args:
            figure: [1 + U, ...] computed from the sums of `left_out`.
            weight: [U, ...] the weight of each unit in the number, 0 if it has none; missing axes broadcast.
            within: the smallest and largest possible value.
        """
        return _interval(figure[0], _spread(_off(figure), weight, self.in_order), within)


def ratio(total: NDArray[np.floating], weight: NDArray[np.floating]) -> Estimate:
    """sum(total) / sum(weight) over n units in the order of a text: [n], and [n] not negative."""
    figure, spread = _series(total, weight)
    return _interval(figure, spread).at()


def difference(
    total_b: NDArray[np.floating],
    weight_b: NDArray[np.floating],
    total_a: NDArray[np.floating],
    weight_a: NDArray[np.floating],
    paired: bool = True,
) -> Estimate:
    """B's ratio minus A's, over units in order. `paired` units are the same pieces of one text, [n] each."""
    if not paired:
        (b, of_b), (a, of_a) = _series(total_b, weight_b), _series(total_a, weight_a)
        return _interval(b - a, of_b.minus(of_a)).at()
    units = Units.in_runs(len(total_b), "units", in_order=True)
    sums = units.sums(np.stack([total_b, weight_b, total_a, weight_a], axis=1))
    left = units.left_out(sums)
    figure = quotient(left[:, 0], left[:, 1]) - quotient(left[:, 2], left[:, 3])
    return units.estimates(figure, sums[:, 1] + sums[:, 3]).at()


def quotient(total: Floats, weight: Floats, empty: float = float("nan")) -> Floats:
    """Total / weight; `empty` where there is no weight."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(weight == 0, empty, total / weight)


def student(degrees: Floats | float) -> Floats:
    """Student's t for LEVEL, two-sided, at these degrees of freedom."""
    t: Floats = stdtrit(degrees, (1 + LEVEL) / 2)
    return t


def of_error(figure: float, error: float | None, units: float, within: tuple[float, float] = ANYWHERE) -> Estimate:
    """An interval from a standard error over independent units, counted by their weight."""
    if error is None or not error > _FLAT * abs(figure) or units <= _LEAST_WEIGHT:
        return Estimate(figure, float("nan"), float("nan"))
    half = float(student(units - 1)) * error
    low, high = np.clip([figure - half, figure + half], *within).tolist()
    return Estimate(figure, low, high)


@dataclass(frozen=True)
class _Spread:
    """The variance of numbers for independent units, and for units in order. Arrays [...]."""

    known: NDArray[np.bool_]
    variance: Floats
    degrees: Floats
    third: Floats  # third central moment
    slow: Floats  # variance from the slowest waves; 0 where units are independent
    slow_degrees: Floats

    def minus(self, other: _Spread) -> _Spread:
        """The spread of the difference to an independent number, with Welch and Satterthwaite's degrees of freedom."""
        return _Spread(
            self.known & other.known,
            self.variance + other.variance,
            _welch(self.variance, self.degrees, other.variance, other.degrees),
            self.third - other.third,
            self.slow + other.slow,
            _welch(self.slow, self.slow_degrees, other.slow, other.slow_degrees),
        )


def _welch(a: Floats, degrees_a: Floats, b: Floats, degrees_b: Floats) -> Floats:
    return quotient((a + b) ** 2, a**2 / degrees_a + b**2 / degrees_b, 1.0)


def _series(total: NDArray[np.floating], weight: NDArray[np.floating]) -> tuple[Floats, _Spread]:
    units = Units.in_runs(len(total), "units", in_order=True)
    sums = units.sums(np.stack([total, weight], axis=1))
    left = units.left_out(sums)
    figure = quotient(left[:, 0], left[:, 1])
    return figure[0], _spread(_off(figure), sums[:, 1], in_order=True)


def _off(figure: Floats) -> Floats:
    """[U, ...] the change when one unit is left out; NaN for an infinite number, which has no interval."""
    with np.errstate(invalid="ignore"):
        change: Floats = figure[1:] - figure[0]
    return change


def _spread(off: Floats, weight: NDArray[np.generic], in_order: bool) -> _Spread:
    """The spread of numbers [...], from the changes when one unit is left out.

    Args:
        off: [U, ...] the number without a unit, minus the number.
        weight: [U, ...] of the units.
        in_order: whether neighbours may depend on each other.
    """
    w = weight.astype(np.float64).reshape(*weight.shape, *(1,) * (off.ndim - weight.ndim))
    weighted = w > 0
    n = np.broadcast_to(weighted.sum(0).astype(np.float64), off.shape[1:])
    effective = np.broadcast_to(quotient(w.sum(0) ** 2, (w**2).sum(0), 0.0), off.shape[1:])
    off = np.where(weighted, off, 0.0)
    known = np.isfinite(off).all(0)
    if in_order:
        known &= effective >= FEWEST_IN_ORDER
    else:
        known &= effective > _LEAST_WEIGHT
    n, effective = np.where(known, n, 2.0), np.where(known, effective, 2.0)
    pull = np.where(known, -(n - 1) * off, 0.0)  # [U, ...] towards each unit
    slow, waves = np.zeros_like(n), np.ones_like(n)
    if in_order and len(off):
        waves = np.maximum(1, np.floor(_WAVES * effective ** (2 / 3)))
        power = np.tensordot(_cosines(len(off), int(waves.max(initial=1))), pull, 1) ** 2
        below = np.arange(1, len(power) + 1).reshape(-1, *(1,) * n.ndim) <= waves
        slow = (power * below).sum(0) / waves * len(off) / n**2
    third = (pull**3).sum(0) / (n * (n - 1)) ** 1.5
    return _Spread(known, (pull**2).sum(0) / (n * (n - 1)), effective - 1, third, slow, waves)


@lru_cache(maxsize=64)
def _cosines(n: int, count: int) -> Floats:
    """[count, n] the slowest cosines over n places: orthonormal, and orthogonal to constants."""
    wave = np.arange(1, count + 1)[:, None] * (np.arange(n) + 0.5) / n
    cosines: Floats = np.sqrt(2 / n) * np.cos(np.pi * wave)
    return cosines


def _interval(figure: Floats, spread: _Spread, within: tuple[float, float] = ANYWHERE) -> Estimates:
    """The wider of both intervals, lengthened on the side to which the units are skewed."""
    error, slow = np.sqrt(spread.variance), np.sqrt(spread.slow)
    t, slow_t = student(spread.degrees), student(spread.slow_degrees)
    wider = slow_t * slow > t * error
    t = np.where(wider, slow_t, t)
    used = np.where(wider, slow, error)
    skewness = quotient(spread.third, error**3, 0.0)
    with np.errstate(invalid="ignore"):
        low = figure - used * np.clip(_hall(t, skewness), t, _LONGEST * t)
        high = figure - used * np.clip(_hall(-t, skewness), -_LONGEST * t, -t)
        known = spread.known & np.isfinite(figure) & (error > _FLAT * np.abs(figure))
    low, high = (np.where(known, np.clip(end, *within), np.nan) for end in (low, high))
    return Estimates(np.asarray(figure, dtype=np.float64), low, high)


def _hall(t: Floats, skewness: Floats) -> Floats:
    """The studentised value x that Hall's cubic maps to t: (1 + a x / 3)^3 = 1 + a (t - a / 6), with a the skewness."""
    a = np.where(np.abs(skewness) < 1e-6, 1.0, skewness)
    return np.where(np.abs(skewness) < 1e-6, t, 3 / a * (np.cbrt(1 + a * (t - a / 6)) - 1))
