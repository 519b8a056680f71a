"""Prompts of a batch whose common first tokens are read once instead of once per row.

Eight worked examples before every question, or one system prompt, are most of what there is to read. Rows are laid out
as shared tokens, padding, the row's own tokens; to causal attention and positions this makes no difference.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.kv_cache import padded_anywhere

MIN_SHARED = 32  # tokens; with fewer, one pass over everything is as fast


class RowCache(Protocol):
    """Rows of keys and values: transformers' caches, and objects that hold several of them."""

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""


@dataclass(frozen=True)
class Prompts:
    """B prompts and how many of their first columns are alike."""

    ids: Tensor  # [B, P]
    mask: Tensor  # [B, P], 0 at padding, which comes after the shared tokens
    shared: int  # number of tokens before the padding that are the same in every row

    @property
    def position(self) -> Tensor:
        """[B, P] position of each token in its row."""
        return (self.mask.cumsum(1) - 1).clamp(min=0)

    def read_shared(self, cache: RowCache, read: Callable[[Tensor, Tensor, Tensor], object]) -> None:
        """Read the shared tokens, if any, into an empty cache, and give every row a copy."""
        if self.shared:
            ids, mask, position = (tensor[:1, : self.shared] for tensor in (self.ids, self.mask, self.position))
            read(ids, mask, position)
            cache.batch_repeat_interleave(len(self.ids))


def shared_first(ids: Tensor, mask: Tensor, base: PreTrainedModel) -> Prompts:
    """Move the tokens that all prompts share before the padding; leave them if they are few or the base forbids it."""
    rows, width = ids.shape
    lengths = mask.sum(1)
    column = torch.arange(width, device=ids.device)
    flush = ids.gather(1, (column + (width - lengths)[:, None]).clamp(max=width - 1))  # padded on the right instead
    alike = (flush == flush[:1]).all(0) & (column < lengths.min() - 1)  # every row keeps at least one token of its own
    shared = int(alike.long().cumprod(0).sum())
    if rows == 1 or shared < MIN_SHARED or not padded_anywhere(base):
        return Prompts(ids, mask, 0)
    ahead = column < shared
    there = ahead | (column >= width - lengths[:, None] + shared)
    return Prompts(torch.where(ahead, flush, ids), there.to(mask.dtype), shared)
