"""Sums up the statistics of heads from blocks of rows that are not kept."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from analysis.attention.positions import AttentionPositions
from analysis.attention.statistics import STATISTICS

SMALLEST = 1e-38  # a weight below it adds nothing to an entropy


class Targets:
    """The keys that each statistic of a query sums over; the same for all layers and heads."""

    def __init__(self, reading: AttentionPositions, device: torch.device | str = "cpu") -> None:
        n = len(reading)
        self.segment = torch.as_tensor(reading.segment, device=device)
        self.linear = torch.stack(
            [torch.ones(n), torch.arange(n, dtype=torch.float32), torch.as_tensor(reading.starts).float()]
        ).to(device)  # [3, P]: its products with a row are the sum, the mean key, and the share on boundaries
        lengths = np.bincount(reading.segment)
        pairs = lengths[1:] + lengths[:-1]
        self.reach = int(max(lengths.max(), pairs.max(initial=0)))  # how many keys back both segments reach
        self._order = np.argsort(reading.kinds, kind="stable")  # [P] positions, sorted by kind
        place = np.argsort(self._order, kind="stable")
        first = np.searchsorted(reading.kinds[self._order], reading.kinds)
        self._first, self._before = first, place - first  # [P] how many of the same kind came before

    def induction(self, begin: int, end: int) -> tuple[Tensor, Tensor]:
        """[I] row of the block and [I] key of each pair whose key followed an earlier one of the query's token."""
        before = self._before[begin:end]
        rows = np.repeat(np.arange(end - begin), before)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(before) - before, before)
        keys = self._order[np.repeat(self._first[begin:end], before) + nth] + 1
        device = self.segment.device
        return torch.as_tensor(rows, device=device), torch.as_tensor(keys, device=device)


class HeadSums:
    """Sums up the statistics of one layer's heads while its rows come in."""

    def __init__(self, targets: Targets, heads: int) -> None:
        self._targets = targets
        self._sum = torch.zeros(len(STATISTICS), heads, dtype=torch.float64)
        self._count = torch.zeros(len(STATISTICS), heads, dtype=torch.float64)

    def add(self, begin: int, rows: Tensor, visible: Tensor) -> None:
        """Add rows [H, b, end] of the queries begin .. begin + b - 1, and [b, end] which keys they may see."""
        if begin == 0:
            self._add(1, rows[:, 1:], visible[1:])
        else:
            self._add(begin, rows, visible)

    def _add(self, begin: int, rows: Tensor, visible: Tensor) -> None:
        heads, b, end = rows.shape
        if b == 0:
            return
        targets, seen = self._targets, visible.sum(-1)
        query = torch.arange(begin, begin + b, device=rows.device)
        flat = rows.reshape(heads * b, end)
        total, key, boundaries = (torch.mv(flat, line[:end]).view(heads, b) for line in targets.linear)
        plogp = rows.clamp(min=SMALLEST).log_().mul_(rows).sum(-1)
        entropy = (total.log() - plogp / total).clamp_(min=0)
        current, previous = self._near(query, rows)
        row, keys = targets.induction(begin, begin + b)
        followed = torch.zeros(heads, b, device=rows.device)
        followed.index_add_(1, row, flat.view(heads, -1)[:, row * end + keys])
        again = torch.zeros(b, dtype=torch.bool, device=rows.device)
        again[row] = True
        everywhere = torch.ones_like(again)
        for i, (values, defined) in enumerate(
            (
                (entropy / seen.clamp(min=2).log(), seen > 1),
                (entropy.exp(), everywhere),
                (rows[:, :, 0], everywhere),
                (current, everywhere),
                (previous, targets.segment[query] > 0),
                (boundaries, everywhere),
                (query - key / total, everywhere),
                (followed, again),
            )
        ):
            self._sum[i] += torch.where(defined, values, 0.0).sum(-1, dtype=torch.float64).cpu()
            self._count[i] += int(defined.sum())

    def _near(self, query: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """[H, b] the shares on the query's own segment and on the one before."""
        back = torch.arange(min(self._targets.reach, rows.shape[2]), device=rows.device)
        key = query[:, None] - back  # [b, R]
        inside, key = key >= 0, key.clamp(min=0)
        near = rows.gather(2, key.expand(rows.shape[0], -1, -1))
        behind = self._targets.segment[query][:, None] - self._targets.segment[key]
        return (near * (inside & (behind == 0))).sum(-1), (near * (inside & (behind == 1))).sum(-1)

    def done(self) -> NDArray[np.float64]:
        """[S, H] in the order of STATISTICS; NaN if a statistic was never defined."""
        means: NDArray[np.float64] = torch.where(self._count > 0, self._sum / self._count, torch.nan).numpy()
        return means
