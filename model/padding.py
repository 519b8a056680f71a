"""Prompts of different lengths as one batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def left_padded(rows: Sequence[Sequence[int]], pad: int = 0, width: int | None = None) -> tuple[Tensor, Tensor]:
    """[B, P] ids that end together, and [B, P] 0 where there is padding.

    Args:
        rows: ids of each prompt.
        pad: what stands before the shorter ones; it is never read.
        width: P; None: of the longest row.
    """
    width = width or max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), 1
    return ids, mask
