"""Prompts of a batch, and the tokens that all of them begin with, which are read once instead of once a row.

Eight worked examples before every question, or one system prompt, are most of what there is to read. Rows are laid out
as shared tokens, padding, the row's own tokens: causal attention and positions see nothing of the difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.kv_cache import padded_anywhere

WORTHWHILE = 32  # shared tokens; with fewer, one pass over everything is as quick


class RowCache(Protocol):
    """Rows of keys and values: transformers' caches, and what holds several of them."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Give every row its copies."""

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""


@dataclass(frozen=True)
class Prompts:
    """B prompts and how many columns of them are alike."""

    ids: Tensor  # [B, P]
    mask: Tensor  # [B, P], 0 at padding, which stands behind the shared tokens
    shared: int  # tokens that stand before the padding, the same in every row

    @property
    def position(self) -> Tensor:
        """[B, P] of each token in its row."""
        return (self.mask.cumsum(1) - 1).clamp(min=0)

    def read_shared(self, cache: RowCache, read: Callable[[Tensor, Tensor, Tensor], object]) -> None:
        """Put the shared tokens, if there are any, into an empty cache, and give every row its copy.

        Args:
            cache: empty.
            read: fills the cache from [1, N] ids, mask and positions.
        """
        if self.shared:
            ids, mask, position = (each[:1, : self.shared] for each in (self.ids, self.mask, self.position))
            read(ids, mask, position)
            cache.batch_repeat_interleave(len(self.ids))


def shared_first(ids: Tensor, mask: Tensor, base: PreTrainedModel) -> Prompts:
    """Prompts with what they share moved before the padding; as they are, where that is little or cannot be.

    Args:
        ids: [B, P], padded on the left.
        mask: [B, P], 0 at padding.
        base: who reads them.
    """
    rows, width = ids.shape
    lengths = mask.sum(1)
    column = torch.arange(width, device=ids.device)
    flush = ids.gather(1, (column + (width - lengths)[:, None]).clamp(max=width - 1))  # padded on the right instead
    alike = (flush == flush[:1]).all(0) & (column < lengths.min() - 1)  # every row keeps a token of its own
    shared = int(alike.long().cumprod(0).sum())
    if rows == 1 or shared < WORTHWHILE or not padded_anywhere(base):
        return Prompts(ids, mask, 0)
    ahead = column < shared
    there = ahead | (column >= width - lengths[:, None] + shared)
    return Prompts(torch.where(ahead, flush, ids), there.to(mask.dtype), shared)
