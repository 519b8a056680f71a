"""From a rule's decisions to boundaries under a cap of M tokens a segment, in passes over whole arrays.

A rule hands over one of three plans. `Pointwise`: each token joins or starts, whatever the segment before it looks
like. `Running`: it depends on what has accumulated (a sum, a product, a maximum) since the segment began. `Table`: on
a stored value for each distance from the segment's start.

The cap means the same for all: a token that M tokens of its segment stand before starts a new one. Under a pointwise
plan this adds boundaries within long runs, counted from the last boundary; under the others what has accumulated is
also forgotten there. Knows neither rules nor scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_WIDE = 32  # tokens up to which all possible segments grow together, a token a step; longer ones go one by one
_CHUNK = 64  # tokens that a longer one is first tried on; doubled until it ends


@dataclass(frozen=True)
class Pointwise:
    """Token t joins whenever joins[t]."""

    joins: Bools  # [N]
    compared: NDArray[np.floating]  # [N]

    def __post_init__(self) -> None:
        if self.joins.shape != self.compared.shape or self.joins.ndim != 1:
            raise ValueError(f"joins and compared must be [N], got {self.joins.shape} and {self.compared.shape}")


@dataclass(frozen=True)
class Running:
    """Token t joins if joins(before, x[t]), with before = x[s] o .. o x[t-1] over the segment's tokens so far."""

    x: Floats  # [N]
    ufunc: np.ufunc  # o: add, multiply or maximum, taken from left to right
    joins: Callable[[Floats, Floats], Bools]  # elementwise; NaN never joins
    value: Callable[[Floats, Floats], Floats]  # what is compared

    def __post_init__(self) -> None:
        if self.x.ndim != 1:
            raise ValueError(f"x must be [N], got {self.x.shape}")

    def __len__(self) -> int:
        return len(self.x)

    def operands(self) -> Iterator[tuple[Floats, Floats]]:
        """For j = 1, 2, ..: what stands before token s + j, and its x, for every possible start s: [N - j] each."""
        so_far = self.x.copy()
        for j in range(1, len(self.x)):
            before, new = so_far[: len(self.x) - j], self.x[j:]
            yield before, new
            self.ufunc(before, new, out=before)

    def steps(self) -> Iterator[Bools]:
        """For j = 1, 2, ..: [N - j] whether token s + j joins a segment that began at s."""
        return (self.joins(before, new) for before, new in self.operands())

    def run(self, start: int, end: int) -> Bools:
        """[end - start - 1] whether tokens start + 1 .. end - 1 join the segment that began at `start`."""
        return self.joins(self.ufunc.accumulate(self.x[start : end - 1]), self.x[start + 1 : end])

    def compared(self, starts: Bools) -> Floats:
        """[N] the value that was compared at each token, given the segment before it; NaN at the first."""
        first = np.flatnonzero(starts)
        lengths = np.diff(np.append(first, len(starts)))
        so_far = self.x.copy()
        for j in range(1, min(int(lengths.max(initial=0)), _WIDE)):
            at = first[lengths > j] + j
            so_far[at] = self.ufunc(so_far[at - 1], self.x[at])
        for start, length in zip(first[lengths > _WIDE], lengths[lengths > _WIDE], strict=True):
            so_far[start : start + length] = self.ufunc.accumulate(self.x[start : start + length])
        found = np.full(len(starts), np.nan)
        found[1:] = self.value(so_far[:-1], self.x[1:])
        return found


@dataclass(frozen=True)
class Table:
    """Token t of a segment that began j tokens before joins if joins(values[t, j - 1])."""

    values: NDArray[np.floating]  # [N, W]
    joins: Callable[[NDArray[np.floating]], Bools]  # elementwise; NaN never joins

    def __post_init__(self) -> None:
        if self.values.ndim != 2:
            raise ValueError(f"values must be [N, W], got {self.values.shape}")

    def __len__(self) -> int:
        return len(self.values)

    def steps(self) -> Iterator[Bools]:
        """As `Running.steps`."""
        for j in range(1, self.values.shape[1] + 1):
            yield self.joins(self.values[j:, j - 1])

    def run(self, start: int, end: int) -> Bools:
        """As `Running.run`."""
        at = np.arange(start + 1, end)
        return self.joins(self.values[at, at - start - 1])

    def compared(self, starts: Bools) -> Floats:
        """[N] the value that was compared at each token; NaN at the first, and where the cap left nothing to ask."""
        at = np.arange(len(starts))
        began = np.maximum.accumulate(np.where(starts, at, 0))
        distance = at[1:] - began[:-1]
        found = np.full(len(starts), np.nan)
        known = np.flatnonzero(distance <= self.values.shape[1])
        found[known + 1] = self.values[known + 1, distance[known] - 1]
        return found


Plan = Pointwise | Running | Table


def cut(plan: Plan, forced: Bools, max_length: int) -> Bools:
    """[N] where segments start.

    Args:
        plan: what the rule decides. A `Table` needs W >= max_length - 1.
        forced: [N] tokens that start one in any case; the first must.
        max_length: M, at least 1.
    """
    if not isinstance(plan, Pointwise):
        return _walk(plan, forced, max_length)
    starts = forced | ~plan.joins
    at = np.arange(len(starts))
    starts |= (at - np.maximum.accumulate(np.where(starts, at, 0))) % max_length == 0
    return starts


def _walk(plan: Running | Table, forced: Bools, max_length: int) -> Bools:
    n = len(forced)
    lengths, starts, at = _lengths(plan, forced, max_length).tobytes(), bytearray(n), 0
    while at < n:  # the only pass that is not over arrays: from each start to the next
        starts[at] = 1
        at += lengths[at] or _long(plan, forced, at, max_length)
    return np.frombuffer(starts, dtype=bool).copy()


def _lengths(plan: Running | Table, forced: Bools, max_length: int) -> NDArray[np.uint8]:
    """[N] the length of the segment that would start at each token; 0 where it is longer than _WIDE."""
    n, width = len(forced), min(max_length, _WIDE)
    length = np.zeros(n, dtype=np.uint8)
    growing = np.ones(n, dtype=bool)
    for j, joins in zip(range(1, width), plan.steps(), strict=False):
        still = growing[: n - j]
        ends = still & (forced[j:] | ~joins)
        length[: n - j][ends] = j
        still ^= ends
        if not still.any():
            break
    most = np.minimum(max_length, n - np.arange(n))  # the cap, or the end of the last row
    length[growing] = np.where(most <= width, most, 0)[growing]
    return length


def _long(plan: Running | Table, forced: Bools, start: int, max_length: int) -> int:
    """The length of one segment, tried on ever more tokens."""
    last = min(start + max_length, len(forced))
    tried = _CHUNK
    while True:
        end = min(start + tried, last)
        ends = forced[start + 1 : end] | ~plan.run(start, end)
        if ends.any():
            return int(ends.argmax()) + 1
        if end == last:
            return end - start
        tried *= 2
