"""Pools attention maps to the size at which they are shown: blocks of rows go in, a grid of cells comes out.

A cell covers `step` x `step` positions. `max` keeps its largest weight, `mean` the mean over its pairs whose key is not
after the query. A cell without such a pair is NaN. Only the grid is held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.number)
Pool = Literal["max", "mean"]
POOLS: dict[str, str] = {
    "max": "the largest weight of the pairs in a cell: a single strong link stays visible",
    "mean": "the mean weight of the pairs in a cell whose key is not after the query",
}


@dataclass(frozen=True)
class PooledGrid:
    """How n positions become at most `cells` cells per side, all of one size except the last."""

    n: int
    cells: int

    def __post_init__(self) -> None:
        if self.n < 1 or self.cells < 1:
            raise ValueError(f"a grid needs positions and cells, got {self.n} and {self.cells}")

    @property
    def step(self) -> int:
        return -(-self.n // self.cells)

    @property
    def side(self) -> int:
        """C, the number of cells per side."""
        return -(-self.n // self.step)

    @cached_property
    def pairs(self) -> NDArray[np.int64]:
        """[C, C] the number of pairs in each cell whose key is not after the query."""
        query = np.arange(self.n)
        first = np.arange(self.side) * self.step
        width = np.minimum(first + self.step, self.n) - first
        seen = np.clip(query[:, None] + 1 - first, 0, width)
        pairs: NDArray[np.int64] = np.add.reduceat(seen, first, axis=0)
        return pairs


def reduced(reduce: np.ufunc, array: NDArray[Number], step: int) -> NDArray[Number]:
    """Reduce the last two axes to cells of `step` x `step`."""
    for axis in (array.ndim - 2, array.ndim - 1):
        array = reduce.reduceat(array, np.arange(0, array.shape[axis], step), axis=axis)
    return array
