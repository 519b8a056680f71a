"""Pools attention maps while their rows come in; only the grid is held in memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.attention.pooling import POOLS, Pool, PooledGrid
from model.arguments import check_choice


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
