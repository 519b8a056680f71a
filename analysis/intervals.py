"""The 95% intervals of every figure that is a mean, a ratio or another function of sums: one mechanism for all.

A figure is computed from all units and once more without each (the jackknife), which says how much every unit pulls at
it: its variance and skewness. The width is Student's t. Three things keep claims of differences honest where units are
few:

- *Order.* Units in the order of a text (tokens, segments, windows) depend on their neighbours. Their variance is taken
  from the K slowest cosines of the series, K = .3 n^(2/3), with K degrees of freedom (Mueller 2004; Lazarus, Lewis,
  Stock and Watson 2018): few waves for a short text, and so a wide interval. It is never narrower than that of
  independent units. Documents, prompts and examples are independent: their variance is the jackknife's own.
- *Weight.* n units of unequal weight count as n_eff = (sum w)^2 / sum w^2 (Kish 1965), and give n_eff - 1 degrees.
- *Skewness.* Where the pulls lean to one side, Hall's transformation (1992) lengthens the interval on that side. It
  never shortens the other, and at most doubles the one.

Nothing is said (NaN) of fewer than FEWEST_IN_ORDER units in order or FEWEST_DOCUMENTS independent ones, counted by
their weight, nor where the figure does not vary at all. Where there is no difference, at most 7% of the intervals claim
one, at any n and with neighbours correlated by up to .6 (tests/analysis/test_intervals.py).
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
FEWEST_IN_ORDER = 10  # units in the order of a text, by their weight
FEWEST_DOCUMENTS = 3  # independent units
MOST_UNITS = 1000  # of more, neighbours are taken together
NONE = "no interval"  # in words, where there are too few units for one
_LEAST_WEIGHT = 2 + 1e-9  # independent units by their weight: so much is two, or one that holds nearly all
_WAVES = 0.3  # cosines for n^(2/3) units in order
_LONGEST = 2.0  # times its length by Student's t, that an end may have: of few units skewness is hardly known
_FLAT = 1e-12  # of a figure's size: a smaller standard error is rounding
ANYWHERE = (-np.inf, np.inf)
SHARE = (0.0, 1.0)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95% interval; NaN ends where nothing can be said."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    @property
    def clear(self) -> bool:
        """Whether there is an interval, and it leaves out zero."""
        return bool(self.low > 0 or self.high < 0)

    def ends(self, form: Callable[[float], str] = significant, lead: str = "") -> str:
        """The interval in words: "1.2 to 1.8" with what leads it, or that there is none."""
        return f"{lead}{form(self.low)} to {form(self.high)}" if self.known else NONE

    def spoken(self, form: Callable[[float], str] = significant) -> str:
        """The figure and its interval in words: "1.5 (1.2 to 1.8)"."""
        return f"{form(self.mean)} ({self.ends(form)})"


@dataclass(frozen=True)
class Estimates:
    """An array of figures with their intervals."""

    mean: Floats  # [...]
    low: Floats  # [...]
    high: Floats  # [...]

    def at(self, *index: int) -> Estimate:
        """One of them."""
        return Estimate(float(self.mean[index]), float(self.low[index]), float(self.high[index]))


@dataclass(frozen=True)
class Units:
    """Which of R rows belong to one unit: what the intervals are over."""

    of_row: NDArray[np.int64]  # [R] the unit of each row
    count: int  # U
    kind: str  # what a unit is, in the plural
    in_order: bool = False  # neighbouring units may depend on each other

    @classmethod
    def of(cls, document: NDArray[np.integer]) -> Units:
        """The documents of R rows; of a single document its windows.

        Args:
            document: [R] number of each row's document.
        """
        _, which = np.unique(document, return_inverse=True)
        if len(document) > 1 and not which.any():
            return cls.in_runs(len(document), "windows", in_order=True)
        runs = cls.in_runs(int(which.max(initial=-1)) + 1, "documents")
        return cls(runs.of_row[which], runs.count, runs.kind)

    @classmethod
    def in_runs(cls, rows: int, kind: str, in_order: bool = False) -> Units:
        """A unit a row; of very many rows, a unit a run of neighbours, to bound memory."""
        together = max(1, -(-rows // MOST_UNITS))
        of_row = np.arange(rows, dtype=np.int64) // together
        kind = kind if together == 1 else f"runs of {together} {kind}"
        return cls(of_row, int(of_row.max(initial=-1)) + 1, kind, in_order)

    @property
    def meaning(self) -> str:
        """What the intervals are over, for captions and notes."""
        if self.count < (FEWEST_IN_ORDER if self.in_order else FEWEST_DOCUMENTS):
            return f"no intervals: {self.count:,} {self.kind} are too few for them"
        order = ", whose neighbours may depend on each other" if self.in_order else ""
        return f"95% intervals by Student's t over {self.count:,} {self.kind}{order}"

    def sums(self, per_row: NDArray[np.generic]) -> Floats:
        """[U, ...] sums of [R, ...] over the rows of each unit."""
        found = np.zeros((self.count, *per_row.shape[1:]))
        np.add.at(found, self.of_row, per_row)
        return found

    def left_out(self, per_unit: NDArray[np.generic]) -> Floats:
        """[1 + U, ...] sums of [U, ...] over all units, and over all but each."""
        every = per_unit.astype(np.float64)
        whole = every.sum(0)
        with np.errstate(invalid="ignore"):  # of an infinite sum
            return np.concatenate([whole[None], whole - every])

    def estimates(
        self, figure: Floats, weight: NDArray[np.generic], within: tuple[float, float] = ANYWHERE
    ) -> Estimates:
        """Figures with their intervals.

        Args:
            figure: [1 + U, ...] computed from the sums of `left_out`.
            weight: [U, ...] how much of each unit stands in the figure, 0 for nothing; fewer axes are for all.
            within: what the figure can be at least and at most.
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
    """B's ratio minus A's, of units in order. `paired` ones are the same pieces of one text, [n] each."""
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
    """Student's t that LEVEL of the draws with so many degrees of freedom lie within."""
    found: Floats = stdtrit(degrees, (1 + LEVEL) / 2)
    return found


def of_error(figure: float, error: float | None, units: float, within: tuple[float, float] = ANYWHERE) -> Estimate:
    """From a standard error over independent units, counted by their weight."""
    if error is None or not error > _FLAT * abs(figure) or units <= _LEAST_WEIGHT:
        return Estimate(figure, float("nan"), float("nan"))
    half = float(student(units - 1)) * error
    low, high = np.clip([figure - half, figure + half], *within).tolist()
    return Estimate(figure, low, high)


@dataclass(frozen=True)
class _Spread:
    """How far figures stray, as if units were independent, and in order. Arrays [...]."""

    known: NDArray[np.bool_]
    variance: Floats
    degrees: Floats
    third: Floats  # central moment of the figure
    slow: Floats  # variance from the slowest waves; 0 where units are independent
    slow_degrees: Floats

    def minus(self, other: _Spread) -> _Spread:
        """Of a figure minus an independent one, with the degrees of Welch and Satterthwaite."""
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
    """[U, ...] what leaving out each unit changes; NaN where the figure is infinite, which then has no interval."""
    with np.errstate(invalid="ignore"):
        found: Floats = figure[1:] - figure[0]
    return found


def _spread(off: Floats, weight: NDArray[np.generic], in_order: bool) -> _Spread:
    """Of figures [...], from what leaving out each unit changes.

    Args:
        off: [U, ...] the figure without a unit minus the figure.
        weight: [U, ...] of the units in it.
        in_order: neighbours may depend on each other.
    """
    w = weight.astype(np.float64).reshape(*weight.shape, *(1,) * (off.ndim - weight.ndim))
    there = w > 0
    n = np.broadcast_to(there.sum(0).astype(np.float64), off.shape[1:])
    effective = np.broadcast_to(quotient(w.sum(0) ** 2, (w**2).sum(0), 0.0), off.shape[1:])
    off = np.where(there, off, 0.0)
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
    """[count, n] the slowest cosines over n places: orthonormal, and to every constant."""
    wave = np.arange(1, count + 1)[:, None] * (np.arange(n) + 0.5) / n
    found: Floats = np.sqrt(2 / n) * np.cos(np.pi * wave)
    return found


def _interval(figure: Floats, spread: _Spread, within: tuple[float, float] = ANYWHERE) -> Estimates:
    """The wider of both intervals, lengthened to the side that the units lean to."""
    error, slow = np.sqrt(spread.variance), np.sqrt(spread.slow)
    t, slow_t = student(spread.degrees), student(spread.slow_degrees)
    wider = slow_t * slow > t * error
    t = np.where(wider, slow_t, t)
    used = np.where(wider, slow, error)
    lean = quotient(spread.third, error**3, 0.0)  # skewness of the figure
    with np.errstate(invalid="ignore"):
        low = figure - used * np.clip(_hall(t, lean), t, _LONGEST * t)
        high = figure - used * np.clip(_hall(-t, lean), -_LONGEST * t, -t)
        known = spread.known & np.isfinite(figure) & (error > _FLAT * np.abs(figure))
    low, high = (np.where(known, np.clip(end, *within), np.nan) for end in (low, high))
    return Estimates(np.asarray(figure, dtype=np.float64), low, high)


def _hall(t: Floats, lean: Floats) -> Floats:
    """The studentised value that Hall's cubic takes to t: (1 + lean x / 3)^3 = 1 + lean (t - lean / 6)."""
    a = np.where(np.abs(lean) < 1e-6, 1.0, lean)
    return np.where(np.abs(lean) < 1e-6, t, 3 / a * (np.cbrt(1 + a * (t - a / 6)) - 1))
