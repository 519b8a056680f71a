"""Boundaries counted document by document: S segmentations of the same P positions, every pair of them at once.

Positions are tokens, or characters where two tokenizers are compared. The first position of a row starts a segment
under every rule, so that it is never counted as agreement. The measures are those of `segmentation_report.agreement`,
to which they are equal where there is one row.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.corpus.intervals import Estimates, Floats, Units, estimates, quotient
from data.corpus.inputs import row_firsts, row_of

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """Of S segmentations, in each of U units. [u, i, j] is over the rows in which both i and j are known."""

    shared: Floats  # [U, S, S] boundaries of i that j has too
    own: Floats  # [U, S, S] boundaries of i
    windows: Floats  # [U, S, S] windows of reach[i, j]
    differ: Floats  # [U, S, S] of which i and j have different numbers of boundaries in (WindowDiff)
    split: Floats  # [U, S, S] of whose ends are in one segment for one of the two only (Pk)
    positions: Floats  # [U, S, S] that could be boundaries
    reach: NDArray[np.int64]  # [S, S] half the mean segment of i, the reference

    def __post_init__(self) -> None:
        shapes = {getattr(self, name).shape for name in ("shared", "own", "windows", "differ", "split", "positions")}
        if len(shapes) != 1 or self.reach.shape != self.shared.shape[1:]:
            raise ValueError(f"counts must be [U, S, S] and reach [S, S], got {shapes} and {self.reach.shape}")

    def of(self, size: int) -> Counts:
        """Those of the first `size` segmentations."""
        names = ("shared", "own", "windows", "differ", "split", "positions")
        return Counts(**{name: getattr(self, name)[:, :size, :size] for name in names}, reach=self.reach[:size, :size])


@dataclass(frozen=True)
class Pairs:
    """How S segmentations meet, with 95% intervals. [i, j]: i is the reference, j the hypothesis."""

    precision: Estimates  # [S, S] share of j's boundaries that i has
    recall: Estimates  # [S, S] share of i's boundaries that j has
    f1: Estimates  # [S, S]
    chance: Floats  # [S, S] F1 of as many boundaries each, strewn independently
    window_diff: Estimates  # [S, S]
    pk: Estimates  # [S, S]
    mean_f1: Estimates  # [S] with all others but itself


def count(starts: Bools, offsets: NDArray[np.int64], known: Bools, units: Units) -> Counts:
    """Count the boundaries of S segmentations.

    Args:
        starts: [S, P] positions that start a segment.
        offsets: [R + 1] the rows of the P positions.
        known: [S, R] rows in which a segmentation is known.
        units: of the R rows.
    """
    row = row_of(offsets)
    marks = starts & known[:, row]
    marks[:, row_firsts(offsets)] = False
    own, positions, held = _totals(marks, offsets, known, units)
    segments = own.sum(0) + held[1]
    reach = np.maximum(1, np.round(quotient(held[0], segments, 1.0) / 2)).astype(np.int64)
    shared = np.zeros_like(own)
    unit = units.of_row[row]
    edges = [0, *(np.flatnonzero(np.diff(unit)) + 1).tolist(), len(row)]
    for begin, end in itertools.pairwise(edges):  # a stretch of one unit at a time
        part = marks[:, begin:end].astype(np.float32)
        if end > begin:
            shared[unit[begin]] += part @ part.T
    return Counts(shared, own, *_windows(marks, offsets, known, units, reach), positions, reach)


def _totals(
    marks: Bools, offsets: NDArray[np.int64], known: Bools, units: Units
) -> tuple[Floats, Floats, tuple[Floats, Floats]]:
    """[U, S, S] boundaries and positions where both are known; [S, S] all their positions, and rows that hold any."""
    size, rows, lengths = len(marks), known.shape[1], np.diff(offsets)
    row = row_of(offsets)
    per_row = np.stack([np.bincount(row, each, minlength=rows) for each in marks], axis=1)  # [R, S]
    own, positions = (np.zeros((units.count, size, size)) for _ in range(2))
    all_positions, all_rows = np.zeros((size, size)), np.zeros((size, size))
    patterns, which = np.unique(known, axis=1, return_inverse=True)
    for i, pattern in enumerate(patterns.T):  # rows in which the same segmentations are known: mostly all, or few kinds
        both = pattern[:, None] & pattern
        here = (which.reshape(-1) == i)[:, None]
        own += units.sums(per_row * here)[:, :, None] * both
        places = np.stack([lengths, lengths > 0], axis=1) * here  # the first of a row is no place for a boundary
        positions += (units.sums(places) @ [1, -1])[:, None, None] * both
        all_positions, all_rows = (
            total + n * both for total, n in zip((all_positions, all_rows), places.sum(0), strict=True)
        )
    return own, positions, (all_positions, all_rows)


def _windows(
    marks: Bools, offsets: NDArray[np.int64], known: Bools, units: Units, reach: NDArray[np.int64]
) -> tuple[Floats, Floats, Floats]:
    """[U, S, S] windows within rows, those with different numbers of boundaries, and those that one alone splits."""
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
    return found[0], found[1], found[2]


def pairs(counts: Counts, units: Units) -> Pairs:
    """The measures of every pair, each with its interval."""
    shared, own = units.resampled(counts.shared), units.resampled(counts.own)
    other = np.swapaxes(own, 1, 2)
    f1 = quotient(2 * shared, own + other, 1.0)
    windows = units.resampled(counts.windows)
    size = f1.shape[1]
    others = ~np.eye(size, dtype=bool)
    mean_f1 = quotient((f1 * others).sum(2), np.full((len(f1), size), float(size - 1)))
    own_all, other_all, could = own[0], other[0], counts.positions.sum(0)
    return Pairs(
        precision=estimates(quotient(shared, other)),
        recall=estimates(quotient(shared, own)),
        f1=estimates(f1),
        chance=quotient(2 * own_all * other_all, could * (own_all + other_all)),
        window_diff=estimates(quotient(units.resampled(counts.differ), windows)),
        pk=estimates(quotient(units.resampled(counts.split), windows)),
        mean_f1=estimates(mean_f1),
    )
