"""Where the tokens of a batch stand in its segments: index arithmetic only, no loop over tokens or segments.

A batch of B rows of N tokens, with padding anywhere, becomes B rows of S segments (right-padded) of at most M slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import MicroStepError


@dataclass(frozen=True)
class Layout:
    """The segments of a batch."""

    real: Tensor  # [B, N] bool, no padding
    starts: Tensor  # [B, N] bool, the token starts a segment; False at padding
    position: Tensor  # [B, N] index of the token among its row's real ones; 0 at padding
    segment: Tensor  # [B, N] index of its segment in its row; 0 at padding
    slot: Tensor  # [B, N] its place in the segment, from 0; 0 at padding
    lengths: Tensor  # [B, S] tokens of each segment; 0 at padding
    last: Tensor  # [B, S] index (of N) of each segment's last token; 0 at padding

    @property
    def segments(self) -> Tensor:
        """[B, S] bool, no padding."""
        return self.lengths > 0

    @property
    def macro_position(self) -> Tensor:
        """[B, S] the rotary position of a segment: the position of its last token."""
        return self.position.gather(1, self.last)

    def at_last(self, e: Tensor) -> Tensor:
        """[B, S, d] of [B, N, d] the segments' last tokens."""
        return e[torch.arange(len(e), device=e.device)[:, None], self.last]

    def slots(self, rows: Tensor, segments: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """The tokens of chosen segments.

        Args:
            rows: [Q] row of each.
            segments: [Q] index of each in its row.
            most: slots to give.

        Returns:
            [Q, most] index (of N) of the token in each slot, the last token repeated past the end; and [Q, most]
            bool, whether there is one.
        """
        lengths = self.lengths[rows, segments]
        inside = torch.arange(most, device=rows.device)
        first = self.last[rows, segments] - lengths + 1
        return first[:, None] + torch.minimum(inside, lengths[:, None] - 1), inside < lengths[:, None]


def layout(starts: Tensor, attention_mask: Tensor | None, most: int) -> Layout:
    """Lay out a batch.

    Args:
        starts: [B, N] bool, the token starts a segment; the first real token of a row does in any case.
        attention_mask: [B, N], 0 at padding; None: no padding. Real tokens must stand side by side.
        most: M.

    Raises:
        MicroStepError: shapes differ, padding stands between real tokens, or a segment has more than M tokens.
    """
    if attention_mask is not None and attention_mask.shape != starts.shape:
        raise MicroStepError(
            f"segment_starts and attention_mask must have one shape, got {list(starts.shape)} and"
            f" {list(attention_mask.shape)}"
        )
    real = torch.ones_like(starts, dtype=torch.bool) if attention_mask is None else attention_mask != 0
    order = torch.arange(starts.shape[1], device=starts.device).expand_as(starts)
    position = torch.where(real, real.cumsum(1) - 1, 0)
    starts = (starts.bool() | (position == 0)) & real
    segment = torch.where(real, starts.cumsum(1) - 1, 0)
    opened = torch.where(starts, order, -1).cummax(1).values  # where the token's segment opened
    slot = torch.where(real, order - opened, 0)
    if bool((slot >= most).any()):
        raise MicroStepError(f"a segment has {int(slot.max()) + 1} tokens, and the model's segments at most {most}")
    if bool((real[:, :-1] & ~real[:, 1:] & (real[:, 1:].flip(1).cumsum(1).flip(1) > 0)).any()):
        raise MicroStepError("padding must stand at the ends of a row, not between its tokens")
    count = int(starts.sum(1).max()) if starts.numel() else 0
    lengths = torch.zeros(starts.shape[0], count, dtype=torch.long, device=starts.device)
    lengths.scatter_add_(1, segment, real.long())
    last = torch.zeros_like(lengths).scatter_reduce_(1, segment, torch.where(real, order, 0), "amax")
    return Layout(real, starts, position, segment, slot, lengths, last)
