"""Pools attention maps to the size at which they are shown: blocks of rows go in, a grid of cells comes out.

A cell covers `step` x `step` positions. `max` keeps its largest weight, `mean` the mean over its pairs whose key is not
after the query. A cell without such a pair is NaN. Only the grid is held in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.arguments import check_choice

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


class Pooler:
    """Pools H maps over the same n positions."""

    def __init__(self, grid: PooledGrid, pool: Pool, heads: int, device: torch.device | str = "cpu") -> None:
        check_choice("pooling", pool, POOLS)
        self.grid, self.pool = grid, pool
        self._out = torch.zeros(heads, grid.side, grid.side, device=device)

    def add(self, begin: int, rows: Tensor) -> None:
        """Add rows [H, b, end] of the queries begin .. begin + b - 1; keys from `end` on have no weight."""
        step, end = self.grid.step, rows.shape[2]
        whole = end // step
        parts = [self._columns(rows[:, :, : whole * step].reshape(*rows.shape[:2], whole, step))] if whole else []
        parts += [self._columns(rows[:, :, None, whole * step :])] if end % step else []
        narrow = torch.cat(parts, 2)
        into, last = self._out[:, :, : narrow.shape[2]], begin + rows.shape[1]
        for cell in range(begin // step, -(-last // step)):
            part = narrow[:, max(cell * step, begin) - begin : (cell + 1) * step - begin]
            if self.pool == "max":
                torch.maximum(into[:, cell], part.amax(1), out=into[:, cell])
            else:
                into[:, cell] += part.sum(1)

    def _columns(self, rows: Tensor) -> Tensor:
        """[H, b, c, step] -> [H, b, c]."""
        return rows.amax(-1) if self.pool == "max" else rows.sum(-1)

    def done(self) -> NDArray[np.float32]:
        """[H, C, C] the pooled maps."""
        pairs = self.grid.pairs
        pooled = self._out.cpu().numpy()
        with np.errstate(invalid="ignore"):
            scaled = pooled if self.pool == "max" else pooled / pairs
        return np.where(pairs > 0, scaled, np.nan).astype(np.float32)
