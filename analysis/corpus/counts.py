"""Counts boundaries document by document, for all pairs of S segmentations of the same P positions at once.

Positions are tokens, or characters if two tokenizers are compared. Some positions start a segment under every rule: the
first of a row, the first with a score, and prompts. No strategy decides these, so they count neither as agreement nor
as disagreement. No window crosses the end of a row. All comparisons of boundaries in the project use this computation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.intervals import SHARE, Estimates, Floats, Units, quotient
from data.corpus.rule_inputs import row_firsts, row_of

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """Counts for S segmentations in each of U units. [u, i, j] is over the rows in which both i and j are known."""

    shared: Floats  # [U, S, S] boundaries of i that j shares
    own: Floats  # [U, S, S] boundaries of i
    windows: Floats  # [U, S, S] windows of reach[i, j]
    differ: Floats  # [U, S, S] windows with different numbers of boundaries in i and j (WindowDiff)
    split: Floats  # [U, S, S] windows whose ends are in one segment in only one of i and j (Pk)
    positions: Floats  # [U, S, S] positions that could be boundaries
    reach: NDArray[np.int64]  # [S, S] half the mean segment of i, the reference

    def __post_init__(self) -> None:
        shapes = {getattr(self, name).shape for name in ("shared", "own", "windows", "differ", "split", "positions")}
        if len(shapes) != 1 or self.reach.shape != self.shared.shape[1:]:
            raise ValueError(f"counts must be [U, S, S] and reach [S, S], got {shapes} and {self.reach.shape}")

    def of(self, size: int) -> Counts:
        names = ("shared", "own", "windows", "differ", "split", "positions")
        return Counts(**{name: getattr(self, name)[:, :size, :size] for name in names}, reach=self.reach[:size, :size])


@dataclass(frozen=True)
class Marked:
    """The boundaries of S segmentations in the P positions of R rows."""

    starts: Bools  # [S, P] positions that start a segment
    offsets: NDArray[np.int64]  # [R + 1] the rows of the P positions
    known: Bools  # [S, R] rows in which a segmentation is known
    units: Units  # of the R rows
    forced: Bools | None = None  # [P] positions that start a segment under every rule, besides the first of each row


@dataclass(frozen=True)
class Pairs:
    """The agreement of S segmentations, with 95% intervals. [i, j]: i is the reference, j the hypothesis."""

    precision: Estimates  # [S, S] share of j's boundaries that i has
    recall: Estimates  # [S, S] share of i's boundaries that j has
    f1: Estimates  # [S, S]
    chance: Floats  # [S, S] F1 by chance: the same numbers of boundaries, placed independently
    window_diff: Estimates  # [S, S]
    pk: Estimates  # [S, S]
    mean_f1: Estimates  # [S] mean F1 with all others


def count(
    starts: Bools,
    offsets: NDArray[np.int64],
    known: Bools,
    units: Units,
    forced: Bools | None = None,
    reach: int | None = None,
) -> Counts:
    """Count the boundaries of S segmentations.

    Args:
        starts: [S, P] positions that start a segment.
        offsets: [R + 1] the rows of the P positions.
        known: [S, R] rows in which a segmentation is known.
        units: of the R rows.
        forced: [P] positions that start a segment under every rule, besides the first of each row.
        reach: length of a window; half the mean segment of the reference, rounded, if None.
    """
    return count_in_pieces(lambda: [Marked(starts, offsets, known, units, forced)], reach)


def count_in_pieces(pieces: Callable[[], Iterable[Marked]], reach: int | None = None) -> Counts:
    """As `count`, for pieces of whole rows, which are asked for twice. No count depends on how the rows are divided."""
    counting = Counting(reach)
    for piece in pieces():
        counting.add(piece)
    for piece in pieces():
        counting.add_windows(piece)
    return counting.counts()


class Counting:
    """Counts over pieces: `add` takes each, then `add_windows` each again, since windows depend on mean segments."""

    def __init__(self, reach: int | None = None) -> None:
        self._reach = reach
        self._sums: list[Floats] = []  # positions and segments [S, S]; shared, own, possible boundaries [U, S, S]
        self._windows: Floats | None = None

    def add(self, piece: Marked) -> None:
        marks, free, row = _free(piece)
        own, positions = _totals(marks, ~free, piece.offsets, piece.known, piece.units)
        shared = np.zeros_like(own)
        unit = piece.units.of_row[row]
        edges = [0, *(np.flatnonzero(np.diff(unit)) + 1).tolist(), len(row)]
        for begin, end in itertools.pairwise(edges):  # one stretch of a unit at a time
            part = marks[:, begin:end].astype(np.float32)
            if end > begin:
                shared[unit[begin]] += part @ part.T
        found = [*_per_row(_all_marks(piece, row), piece.offsets, piece.known), shared, own, positions]
        self._sums = [a + b for a, b in zip(self._sums, found, strict=True)] if self._sums else found

    @property
    def reaches(self) -> NDArray[np.int64]:
        """[S, S] the length of a window: half the mean segment of the reference."""
        whole, segments = self._sums[:2]
        half = np.round(quotient(whole, segments, 1.0) / 2)
        return np.maximum(1, half if self._reach is None else np.full_like(half, self._reach)).astype(np.int64)

    def add_windows(self, piece: Marked) -> None:
        marks, _, _ = _free(piece)
        found = _windows(marks, piece.offsets, piece.known, piece.units, self.reaches)
        self._windows = found if self._windows is None else self._windows + found

    def counts(self) -> Counts:
        if self._windows is None:
            raise ValueError("no piece was counted")
        _, _, shared, own, positions = self._sums
        windows, differ, split = self._windows
        return Counts(shared, own, windows, differ, split, positions, self.reaches)


def _all_marks(piece: Marked, row: NDArray[np.int64]) -> Bools:
    """[S, P] the boundaries in known rows, of which each row's first position is one."""
    first = row_firsts(piece.offsets)
    given = piece.known[:, row]
    marks = piece.starts & given
    marks[:, first] = given[:, first]
    return marks


def _free(piece: Marked) -> tuple[Bools, Bools, NDArray[np.int64]]:
    """[S, P] the boundaries that a strategy decides, [P] where there could be any, and [P] rows."""
    row = row_of(piece.offsets)
    free = np.ones(len(row), dtype=bool) if piece.forced is None else ~piece.forced
    free[row_firsts(piece.offsets)] = False
    marks = _all_marks(piece, row)
    marks &= free
    return marks, free, row


def _per_row(marks: Bools, offsets: NDArray[np.int64], known: Bools) -> tuple[Floats, Floats]:
    """[S, S] positions, and segments of i, in the rows where both i and j are known."""
    rows = known.shape[1]
    lengths, row = np.diff(offsets).astype(np.float64), row_of(offsets)
    segments = np.stack([np.bincount(row, each, minlength=rows) for each in marks])
    there = known.astype(np.float64)
    return (there * lengths) @ there.T, segments @ there.T


def _totals(
    marks: Bools, forced: Bools, offsets: NDArray[np.int64], known: Bools, units: Units
) -> tuple[Floats, Floats]:
    """[U, S, S] boundaries of i, and positions that could be boundaries, in rows where both are known."""
    size, rows, row = len(marks), known.shape[1], row_of(offsets)
    per_row = np.stack([np.bincount(row, each, minlength=rows) for each in (*marks, ~forced)], axis=1)  # [R, S + 1]
    own, positions = (np.zeros((units.count, size, size)) for _ in range(2))
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    for i, pattern in enumerate(
        patterns.T
    ):  # groups of rows in which the same segmentations are known; there are only a few
        both = pattern[:, None] & pattern
        here = units.sums(per_row * (which.reshape(-1) == i)[:, None])
        own += here[:, :-1, None] * both
        positions += here[:, -1, None, None] * both
    return own, positions


def _windows(marks: Bools, offsets: NDArray[np.int64], known: Bools, units: Units, reach: NDArray[np.int64]) -> Floats:
    """[3, U, S, S]: windows within rows, those with different numbers of boundaries, and those that only one splits."""
    size, row = len(marks), row_of(offsets)
    found = np.zeros((3, units.count, size, size))
    before = np.zeros((size, len(row) + 1), dtype=np.int32)
    np.cumsum(marks, axis=1, out=before[:, 1:])
    for i in range(size):
        for k in np.unique(reach[i]).tolist():
            at = np.flatnonzero(np.arange(len(row)) + k < offsets[1:][row])  # windows of positions at .. at + k
            unit, inside = units.of_row[row[at]], before[i, at + k + 1] - before[i, at + 1]
            for j in np.flatnonzero(reach[i] == k).tolist():
                both = (known[i] & known[j])[row[at]]
                other = before[j, at + k + 1] - before[j, at + 1]
                kinds = both, both & (inside != other), both & ((inside == 0) != (other == 0))
                for n, kind in enumerate(kinds):
                    found[n, :, i, j] = np.bincount(unit[kind], minlength=units.count)
    return found


def pairs(counts: Counts, units: Units) -> Pairs:
    """The measures of every pair, each with its interval."""
    shared, own = units.left_out(counts.shared), units.left_out(counts.own)
    other = np.swapaxes(own, 1, 2)
    of_i, of_j = counts.own, np.swapaxes(counts.own, 1, 2)  # the weight of each unit in a measure
    f1 = quotient(2 * shared, own + other, 1.0)
    windows = units.left_out(counts.windows)
    size = f1.shape[1]
    others = ~np.eye(size, dtype=bool)
    mean_f1 = quotient((f1 * others).sum(2), np.full((len(f1), size), float(size - 1)))
    own_all, other_all, could = own[0], other[0], counts.positions.sum(0)
    return Pairs(
        precision=units.estimates(quotient(shared, other), of_j, SHARE),
        recall=units.estimates(quotient(shared, own), of_i, SHARE),
        f1=units.estimates(f1, of_i + of_j, SHARE),
        chance=quotient(2 * own_all * other_all, could * (own_all + other_all)),
        window_diff=units.estimates(quotient(units.left_out(counts.differ), windows), counts.windows, SHARE),
        pk=units.estimates(quotient(units.left_out(counts.split), windows), counts.windows, SHARE),
        mean_f1=units.estimates(mean_f1, counts.own.sum(2), SHARE),
    )
