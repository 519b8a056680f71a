"""The positions of a batch's tokens in its segments: index arithmetic only, no loop over tokens or segments.

A batch of B rows of N tokens, with padding anywhere, becomes B rows of S segments (right-padded) of at most M slots.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.errors import MicroStepError


@dataclass(frozen=True)
class Layout:
    """The segments of a batch."""

    real: Tensor  # [B, N] bool, False at padding
    starts: Tensor  # [B, N] bool, True if the token starts a segment; False at padding
    position: Tensor  # [B, N] index of the token among its row's real tokens; 0 at padding
    segment: Tensor  # [B, N] index of its segment in its row; 0 at padding
    slot: Tensor  # [B, N] the token's place in the segment, from 0; 0 at padding
    lengths: Tensor  # [B, S] number of tokens in each segment; 0 at padding
    last: Tensor  # [B, S] index (of N) of each segment's last token; 0 at padding

    @property
    def segments(self) -> Tensor:
        """[B, S] bool, False at padding."""
        return self.lengths > 0

    @property
    def macro_position(self) -> Tensor:
        """[B, S] rotary position of a segment: the position of its last token."""
        return self.position.gather(1, self.last)

    def at_last(self, entries: Tensor) -> Tensor:
        """Return [B, S, d], the entries of e [B, N, d] at the segments' last tokens."""
        return entries[torch.arange(len(entries), device=entries.device)[:, None], self.last]

    def slots(self, rows: Tensor, segments: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return the tokens of chosen segments.

        Args:
            rows: [Q] row of each segment.
            segments: [Q] index of each segment in its row.
            count: number of slots to return.

        Returns:
            [Q, most] index (of N) of the token in each slot, the last token repeated past the end; and [Q, most] bool,
                whether
            there is a token.
        """
        lengths = self.lengths[rows, segments]
        inside = torch.arange(count, device=rows.device)
        first = self.last[rows, segments] - lengths + 1
        return first[:, None] + torch.minimum(inside, lengths[:, None] - 1), inside < lengths[:, None]

    def before(self, rows: Tensor, segments: Tensor, count: int) -> Tensor:
        """Return [Q, count] index (of N) of the tokens before chosen segments; a row's first repeats where none is."""
        first = self.last[rows, segments] - self.lengths[rows, segments] + 1
        row_first = self.last[rows, 0] - self.lengths[rows, 0] + 1
        earlier = first[:, None] - torch.arange(count, 0, -1, device=rows.device)
        return torch.maximum(earlier, row_first[:, None])


def layout(starts: Tensor, attention_mask: Tensor | None, max_length: int) -> Layout:
    """Lay out a batch.

    Args:
        starts: [B, N] bool, True if the token starts a segment; the first real token of a row always does.
        attention_mask: [B, N], 0 at padding; None: no padding. Real tokens must be contiguous.
        max_length: M.
    """
    if attention_mask is not None and attention_mask.shape != starts.shape:
        raise MicroStepError(
            f"segment_starts and attention_mask must have the same shape, got {list(starts.shape)} and"
            f" {list(attention_mask.shape)}"
        )
    real = torch.ones_like(starts, dtype=torch.bool) if attention_mask is None else attention_mask != 0
    order = torch.arange(starts.shape[1], device=starts.device).expand_as(starts)
    position = torch.where(real, real.cumsum(1) - 1, 0)
    starts = (starts.bool() | (position == 0)) & real
    segment = torch.where(real, starts.cumsum(1) - 1, 0)
    opened = torch.where(starts, order, -1).cummax(1).values  # index of the first token of each token's segment
    slot = torch.where(real, order - opened, 0)
    if bool((slot >= max_length).any()):
        raise MicroStepError(
            f"a segment has {int(slot.max()) + 1} tokens, but the model's segments have at most {max_length}"
        )
    if bool((real[:, :-1] & ~real[:, 1:] & (real[:, 1:].flip(1).cumsum(1).flip(1) > 0)).any()):
        raise MicroStepError("padding must be at the ends of a row, not between its tokens")
    count = int(starts.sum(1).max()) if starts.numel() else 0
    lengths = torch.zeros(starts.shape[0], count, dtype=torch.long, device=starts.device)
    lengths.scatter_add_(1, segment, real.long())
    last = torch.zeros_like(lengths).scatter_reduce_(1, segment, torch.where(real, order, 0), "amax")
    return Layout(real, starts, position, segment, slot, lengths, last)
