"""Reads any attention map: a window of it, pooled cells, one row, and the mean weight that each key receives.

A map is [size, size] with nothing after the diagonal. It is never held as a whole; it gives its rows in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.attention.pooling import Pool, PooledGrid, reduced
from model.errors import MicroStepError

_BLOCK_ELEMENTS = 1 << 22

Floats = NDArray[np.float32]


class MapRows(Protocol):
    """An attention map that gives its rows."""

    @property
    def size(self) -> int:
        """The number of queries, which is the number of keys."""

    def rows(self, begin: int, end: int) -> Floats:
        """[end - begin, end] weights of the queries begin .. end - 1; keys from `end` on have none."""


@dataclass(frozen=True)
class MapWindow:
    """Queries [q0, q1) by keys [k0, k1)."""

    q0: int
    q1: int
    k0: int
    k1: int

    @classmethod
    def of(cls, size: int, queries: tuple[int, int] | None = None, keys: tuple[int, int] | None = None) -> MapWindow:
        """A window of a map; the whole map by default."""
        for what, given in (("queries", queries), ("keys", keys)):
            if given is not None and not 0 <= given[0] < given[1] <= size:
                raise MicroStepError(f"{what} must be FROM:TO within 0:{size}, got {given[0]}:{given[1]}")
        return cls(*(queries or (0, size)), *(keys or (0, size)))

    @property
    def longest(self) -> int:
        return max(self.q1 - self.q0, self.k1 - self.k0)


@dataclass(frozen=True, eq=False)
class MapCells:
    """The cells drawn of a map. A cell covers `step` queries and keys, from q0 and k0 on; 1 is full detail."""

    window: MapWindow
    step: int
    weight: Floats  # [Q, K]; NaN if all keys of a cell come after all its queries

    def __post_init__(self) -> None:
        shape = tuple(-(-n // self.step) for n in (self.window.q1 - self.window.q0, self.window.k1 - self.window.k0))
        if self.weight.shape != shape:
            raise ValueError(f"weight must be {shape}, got {self.weight.shape}")

    @property
    def queries(self) -> NDArray[np.int64]:
        """[Q] the first query of each row."""
        return np.arange(self.window.q0, self.window.q1, self.step)

    @property
    def keys(self) -> NDArray[np.int64]:
        """[K] the first key of each column."""
        return np.arange(self.window.k0, self.window.k1, self.step)


def blocks(attention_map: MapRows, begin: int, end: int) -> Iterator[tuple[int, Floats]]:
    """The rows begin .. end - 1 in blocks, each with its first query."""
    step = max(1, _BLOCK_ELEMENTS // attention_map.size)
    for at in range(begin, end, step):
        yield at, attention_map.rows(at, min(end, at + step))


def window(attention_map: MapRows, part: MapWindow) -> Floats:
    """[Q, K] a part of a map in full; NaN where the key comes after the query."""
    weights = np.zeros((part.q1 - part.q0, part.k1 - part.k0), dtype=np.float32)
    for at, rows in blocks(attention_map, part.q0, part.q1):
        seen = rows[:, part.k0 : part.k1]
        weights[at - part.q0 : at - part.q0 + len(rows), : seen.shape[1]] = seen
    later = np.arange(part.k0, part.k1) > np.arange(part.q0, part.q1)[:, None]
    weights[later] = np.nan
    return weights


def cells(attention_map: MapRows, part: MapWindow, most: int, pool: Pool) -> MapCells:
    """A part of a map in at most `most` cells per side: in full if it fits, else pooled."""
    if part.longest <= most:
        return MapCells(part, 1, window(attention_map, part))
    if part == MapWindow.of(attention_map.size):
        import torch

        from analysis.attention.passes.pooler import Pooler

        grid = PooledGrid(attention_map.size, most)
        pooler = Pooler(grid, pool, 1)
        for at, rows in blocks(attention_map, 0, attention_map.size):
            pooler.add(at, torch.as_tensor(rows)[None])
        return MapCells(part, grid.step, pooler.done()[0])
    return MapCells(part, step := -(-part.longest // most), _pooled(window(attention_map, part), step, pool))


def _pooled(whole: Floats, step: int, pool: Pool) -> Floats:
    """[Q, K] pooled cells of a part of a map."""
    seen = ~np.isnan(whole)
    pairs = reduced(np.add, seen.astype(np.int64), step).astype(np.float32)
    values = reduced(np.maximum if pool == "max" else np.add, np.where(seen, whole, 0), step).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, values if pool == "max" else values / pairs, np.nan).astype(np.float32)


def row(attention_map: MapRows, query: int) -> Floats:
    """[size] what one query attends to; NaN for keys after it."""
    weights = np.full(attention_map.size, np.nan, dtype=np.float32)
    weights[: query + 1] = attention_map.rows(query, query + 1)[0]
    return weights


def received(attention_map: MapRows) -> Floats:
    """[size] the mean weight that each key receives from the queries that see it."""
    total = np.zeros(attention_map.size)
    for _, rows in blocks(attention_map, 0, attention_map.size):
        total[: rows.shape[1]] += rows.sum(0, dtype=np.float64)
    return (total / np.arange(attention_map.size, 0, -1)).astype(np.float32)


@dataclass(frozen=True, eq=False)
class SegmentRows:
    """A map of P positions as a map of S segments. Its rows still sum to 1."""

    of: MapRows
    starts: NDArray[np.bool_]  # [P] whether a position starts a segment

    def __post_init__(self) -> None:
        if self.starts.shape != (self.of.size,) or not self.starts[0]:
            raise ValueError(f"starts must be [{self.of.size}] and begin with a segment, got {self.starts.shape}")

    @property
    def size(self) -> int:
        return int(self.starts.sum())

    def rows(self, begin: int, end: int) -> NDArray[np.float32]:
        """[end - begin, end] weights of the segments begin .. end - 1."""
        edges = np.append(np.flatnonzero(self.starts), self.of.size)
        first, last = int(edges[begin]), int(edges[end])
        summed = np.add.reduceat(self.of.rows(first, last), edges[:end], axis=1)
        counts = np.diff(edges[begin : end + 1])[:, None]
        mean = np.add.reduceat(summed, edges[begin:end] - first, axis=0) / counts
        return mean.astype(np.float32)
