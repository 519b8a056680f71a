"""One attention map, whatever it is a map of: rows on demand, a window of it, pooled, one row, what each key receives.

A map is [size, size] with nothing after the diagonal, and is held by nobody: whoever has it gives rows in blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.attention.pooling import Pool, PooledGrid, Pooler
from model.errors import MicroStepError

_BLOCK_ELEMENTS = 1 << 22

Floats = NDArray[np.float32]


class MapRows(Protocol):
    """A map that gives its rows."""

    @property
    def size(self) -> int:
        """How many queries, and keys, there are."""

    def rows(self, begin: int, end: int) -> Floats:
        """[end - begin, end] the queries begin .. end - 1; keys from `end` on have none."""


@dataclass(frozen=True)
class MapWindow:
    """Queries [q0, q1) by keys [k0, k1)."""

    q0: int
    q1: int
    k0: int
    k1: int

    @classmethod
    def of(cls, size: int, queries: tuple[int, int] | None = None, keys: tuple[int, int] | None = None) -> MapWindow:
        """A window of a map; all of it where nothing else is said.

        Raises:
            MicroStepError: it is empty, or outside of the map.
        """
        for what, given in (("queries", queries), ("keys", keys)):
            if given is not None and not 0 <= given[0] < given[1] <= size:
                raise MicroStepError(f"{what} must be FROM:TO within 0:{size}, got {given[0]}:{given[1]}")
        return cls(*(queries or (0, size)), *(keys or (0, size)))

    @property
    def longest(self) -> int:
        """The longer side."""
        return max(self.q1 - self.q0, self.k1 - self.k0)


@dataclass(frozen=True, eq=False)
class MapCells:
    """What is drawn of a map: queries and keys from q0 and k0, `step` to a cell; 1 is full detail."""

    window: MapWindow
    step: int
    weight: Floats  # [Q, K]; NaN where every key of the cell comes after every query

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


def blocks(map_: MapRows, begin: int, end: int) -> Iterator[tuple[int, Floats]]:
    """The rows begin .. end - 1 in blocks, each with its first query."""
    step = max(1, _BLOCK_ELEMENTS // map_.size)
    for at in range(begin, end, step):
        yield at, map_.rows(at, min(end, at + step))


def window(map_: MapRows, part: MapWindow) -> Floats:
    """[Q, K] a part of a map in full; NaN where the key comes after the query."""
    found = np.zeros((part.q1 - part.q0, part.k1 - part.k0), dtype=np.float32)
    for at, rows in blocks(map_, part.q0, part.q1):
        seen = rows[:, part.k0 : part.k1]
        found[at - part.q0 : at - part.q0 + len(rows), : seen.shape[1]] = seen
    later = np.arange(part.k0, part.k1) > np.arange(part.q0, part.q1)[:, None]
    found[later] = np.nan
    return found


def cells(map_: MapRows, part: MapWindow, most: int, pool: Pool) -> MapCells:
    """A part of a map in at most `most` cells a side: in full where it fits, else pooled."""
    if part.longest <= most:
        return MapCells(part, 1, window(map_, part))
    if part == MapWindow.of(map_.size):
        grid = PooledGrid(map_.size, most)
        pooler = Pooler(grid, pool, 1)
        for at, rows in blocks(map_, 0, map_.size):
            pooler.add(at, torch.as_tensor(rows)[None])
        return MapCells(part, grid.step, pooler.done()[0])
    return MapCells(part, step := -(-part.longest // most), _pooled(window(map_, part), step, pool))


def _pooled(whole: Floats, step: int, pool: Pool) -> Floats:
    """[Q, K] cells of a part that is held."""
    seen = ~np.isnan(whole)
    filled = np.where(seen, whole, 0)
    edges = [np.arange(0, n, step) for n in whole.shape]

    def both(reduce: np.ufunc, array: NDArray[np.generic]) -> NDArray[np.generic]:
        found: NDArray[np.generic] = reduce.reduceat(reduce.reduceat(array, edges[0], axis=0), edges[1], axis=1)
        return found

    pairs = both(np.add, seen.astype(np.int64)).astype(np.float32)
    values = both(np.maximum if pool == "max" else np.add, filled).astype(np.float32)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, values if pool == "max" else values / pairs, np.nan).astype(np.float32)


def row(map_: MapRows, query: int) -> Floats:
    """[size] what one query attends to; NaN for keys after it."""
    found = np.full(map_.size, np.nan, dtype=np.float32)
    found[: query + 1] = map_.rows(query, query + 1)[0]
    return found


def received(map_: MapRows) -> Floats:
    """[size] the mean weight that each key has from the queries that it does not come after."""
    total = np.zeros(map_.size)
    for _, rows in blocks(map_, 0, map_.size):
        total[: rows.shape[1]] += rows.sum(0, dtype=np.float64)
    return (total / np.arange(map_.size, 0, -1)).astype(np.float32)
