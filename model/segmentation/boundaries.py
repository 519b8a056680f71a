"""Turn a rule's decisions into boundaries under a cap of M tokens per segment, with operations on whole arrays.

A rule returns one of three plans. `Pointwise`: each token joins or starts a segment whatever the segment before it
looks like. `Running`: the decision depends on what has accumulated (a sum, a product, a maximum) since the segment
began. `Table`: it depends on a stored value for each distance from the segment's start.

The cap means the same for all: a token with M tokens of its segment before it starts a new one. Under a pointwise plan
this adds boundaries within long runs, counted from the last boundary; under the others it also resets what has
accumulated. This module knows neither rules nor scores.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_WIDE = 32  # segments up to this length grow all at once, one token per step; longer ones are handled one by one
_CHUNK = 64  # tokens that a longer segment is first tried on; doubled until it ends


@dataclass(frozen=True)
class Pointwise:
    """Token t joins if joins[t]."""

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
    value: Callable[[Floats, Floats], Floats]  # the value that is compared

    def __post_init__(self) -> None:
        if self.x.ndim != 1:
            raise ValueError(f"x must be [N], got {self.x.shape}")

    def __len__(self) -> int:
        return len(self.x)

    def operands(self) -> Iterator[tuple[Floats, Floats]]:
        """Yield for j = 1, 2, ..: the value before token s + j, and its x, for every possible start s: [N - j] each."""
        so_far = self.x.copy()
        for j in range(1, len(self.x)):
            before, new = so_far[: len(self.x) - j], self.x[j:]
            yield before, new
            self.ufunc(before, new, out=before)

    def steps(self) -> Iterator[Bools]:
        """Yield for j = 1, 2, ..: [N - j] bool, whether token s + j joins a segment that began at s."""
        return (self.joins(before, new) for before, new in self.operands())

    def run(self, start: int, end: int) -> Bools:
        """Return [end - start - 1] bool: whether tokens start + 1 .. end - 1 join the segment that began at `start`."""
        return self.joins(self.ufunc.accumulate(self.x[start : end - 1]), self.x[start + 1 : end])

    def compared(self, starts: Bools) -> Floats:
        """Return [N] the value compared at each token, given the segment before it; NaN at the first token."""
        first = np.flatnonzero(starts)
        lengths = np.diff(np.append(first, len(starts)))
        so_far = self.x.copy()
        for j in range(1, min(int(lengths.max(initial=0)), _WIDE)):
            at = first[lengths > j] + j
            so_far[at] = self.ufunc(so_far[at - 1], self.x[at])
        for start, length in zip(first[lengths > _WIDE], lengths[lengths > _WIDE], strict=True):
            so_far[start : start + length] = self.ufunc.accumulate(self.x[start : start + length])
        values = np.full(len(starts), np.nan)
        values[1:] = self.value(so_far[:-1], self.x[1:])
        return values


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
        for j in range(1, self.values.shape[1] + 1):
            yield self.joins(self.values[j:, j - 1])

    def run(self, start: int, end: int) -> Bools:
        at = np.arange(start + 1, end)
        return self.joins(self.values[at, at - start - 1])

    def compared(self, starts: Bools) -> Floats:
        """Return [N] the value compared at each token; NaN at the first token and where the cap decided."""
        position = np.arange(len(starts))
        began = np.maximum.accumulate(np.where(starts, position, 0))
        distance = position[1:] - began[:-1]
        result = np.full(len(starts), np.nan)
        known = np.flatnonzero(distance <= self.values.shape[1])
        result[known + 1] = self.values[known + 1, distance[known] - 1]
        return result


Plan = Pointwise | Running | Table


def find_starts(plan: Plan, forced: Bools, max_length: int) -> Bools:
    """Return [N] bool, where segments start.

    Args:
        plan: the rule's decisions. A `Table` needs W >= max_length - 1.
        forced: [N] bool, tokens that start a segment in any case; the first must.
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
    while at < n:  # the only loop over segments: from each start to the next
        starts[at] = 1
        at += lengths[at] or _long(plan, forced, at, max_length)
    return np.frombuffer(starts, dtype=bool).copy()


def _lengths(plan: Running | Table, forced: Bools, max_length: int) -> NDArray[np.uint8]:
    """Return [N] the length of the segment that would start at each token; 0 if it is longer than _WIDE."""
    n, width = len(forced), min(max_length, _WIDE)
    length = np.zeros(n, dtype=np.uint8)
    growing = np.ones(n, dtype=bool)
    for j, joins in zip(range(1, width), plan.steps(), strict=False):
        open_ = growing[: n - j]
        ends = open_ & (forced[j:] | ~joins)
        length[: n - j][ends] = j
        open_ ^= ends
        if not open_.any():
            break
    limit = np.minimum(max_length, n - np.arange(n))  # the cap, or the end of the last row
    length[growing] = np.where(limit <= width, limit, 0)[growing]
    return length


def _long(plan: Running | Table, forced: Bools, start: int, max_length: int) -> int:
    """Return the length of one segment, tried on more and more tokens."""
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
