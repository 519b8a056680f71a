"""What the base has read of rows that are written segment by segment: its cache, what each row sees of it, and where.

Every token of a prompt is a macro step of its own. The tokens of a segment are read when the next macro step starts,
those of all rows together; of the slots that this adds to a cache each row keeps its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from model.causal_lm.kv_cache import IDLE, growing_cache, keep_slots, padded_anywhere
from model.decoding.session import read_prompts
from model.micro_step.cache_folding import kept_slots
from model.micro_step.layer_split import part_cache
from model.micro_step.macro_inputs import MacroInputs, merged, read_in_parts
from model.micro_step.outputs import Macro

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

States = tuple[Tensor, Tensor]  # of the base at each row's last macro step: [R, d], and [R, K, d] of the context layers


def macro_cache(model: MicroStepPreTrainedModel) -> MacroCache:
    """An empty one, for the layer at which a model merges."""
    if model.config.merge_layer == 0:
        return MacroCache(model, growing_cache(model.base.config.get_text_config()))
    return _Folded(model, growing_cache()) if model.config.folds_cache else _InParts(model)


class MacroCache:
    """R rows, merged before the first layer: one slot a segment."""

    def __init__(self, model: MicroStepPreTrainedModel, cache: DynamicCache) -> None:
        self.model, self.cache = model, cache
        self.mask = self.position = torch.zeros(0)  # [R, slots], 0 at what a row does not see; [R] of the last tokens

    def read(self, input_ids: Tensor, mask: Tensor) -> States:
        """Read prompts [R, P], padded on the left; the cache is empty."""
        last, context, self.mask, self.position = read_prompts(self.model, input_ids, mask, self, self._read_tokens)
        return last, context

    def step(self, e: Tensor, there: Tensor) -> States:
        """Read a segment more of each row: embeddings [R, M, d], and [R, M] which tokens there are, the first ones."""
        self.position = self.position + there.sum(1)
        self.mask = _longer(self.mask, there[:, :1])
        steps = merged(self.model, e, there)[:, None]
        macro = self.model.macro(steps, self.mask, self.position[:, None], self.cache)
        return macro.last[:, -1], macro.context[:, -1]

    @property
    def slots(self) -> int:
        """Of the longest row, the mean of all layers; layers that keep a state count as if they kept all."""
        try:
            return int(self.cache.get_seq_length())
        except ValueError:  # no layer has keys and values
            return int(self.mask.shape[1])

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""
        self.cache.batch_select_indices(indices)
        self.mask, self.position = self.mask[indices], self.position[indices]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Give every row its copies, while a prompt is read."""
        self.cache.batch_repeat_interleave(repeats)

    def _read_tokens(self, e: Tensor, mask: Tensor, position: Tensor) -> Macro:
        """Every token a macro step: the whole base's own reading."""
        return self.model.macro(e, mask, position, self.cache)


class _InParts(MacroCache):
    """The first k layers have a cache of their own, with one slot a token; it keeps all, in layers that slide too."""

    def __init__(self, model: MicroStepPreTrainedModel) -> None:
        k, layers = model.config.merge_layer, model.config.num_hidden_layers
        super().__init__(model, part_cache(range(k, layers), layers, model.base.config.get_text_config()))
        self.tokens, self.tokens_mask = part_cache(range(k), layers), torch.zeros(0)
        self.anywhere = padded_anywhere(model.base)

    def read(self, input_ids: Tensor, mask: Tensor) -> States:
        """See `MacroCache`."""
        found = super().read(input_ids, mask)
        self.tokens_mask = self.mask
        return found

    def step(self, e: Tensor, there: Tensor) -> States:
        """See `MacroCache`."""
        e, there, length, position = _tokens(e, there, self.position)
        row = torch.arange(len(e), device=e.device)
        self.position = self.position + length
        self.mask, seen = _longer(self.mask, there[:, :1]), _longer(self.tokens_mask, there)
        macro = read_in_parts(
            self.model,
            e,
            MacroInputs(seen, position, self.tokens),
            MacroInputs(self.mask, self.position[:, None], self.cache),
            fold=lambda states: merged(self.model, states, there)[:, None],
            last=lambda states: states[row, length - 1][:, None],
        )
        self.tokens_mask = keep_slots(self.tokens, seen, there, self.anywhere, IDLE)
        return macro.last[:, -1], macro.context[:, -1]

    @property
    def slots(self) -> int:
        """See `MacroCache`."""
        k, layers = int(self.model.config.merge_layer), int(self.model.config.num_hidden_layers)
        tokens = int(self.tokens_mask.sum(1).max()) if len(self.tokens_mask) else 0
        return round((k * tokens + (layers - k) * int(self.cache.get_seq_length(k))) / layers)

    def batch_select_indices(self, indices: Tensor) -> None:
        """See `MacroCache`."""
        super().batch_select_indices(indices)
        self.tokens.batch_select_indices(indices)
        self.tokens_mask = self.tokens_mask[indices]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """See `MacroCache`."""
        super().batch_repeat_interleave(repeats)
        self.tokens.batch_repeat_interleave(repeats)

    def _read_tokens(self, e: Tensor, mask: Tensor, position: Tensor) -> Macro:
        tokens, steps = MacroInputs(mask, position, self.tokens), MacroInputs(mask, position, self.cache)
        return read_in_parts(self.model, e, tokens, steps, fold=_as_they_are, last=_as_they_are)


class _Folded(MacroCache):
    """All layers read every token; of a segment's slots one or two stay."""

    def step(self, e: Tensor, there: Tensor) -> States:
        """See `MacroCache`."""
        e, there, length, position = _tokens(e, there, self.position)
        row, slot = torch.arange(len(e), device=e.device), torch.arange(e.shape[1], device=e.device)
        self.position = self.position + length
        seen = _longer(self.mask, there)
        macro = self.model.macro(e, seen, position, self.cache)
        kept = kept_slots(slot, length[:, None], self.model.config.keep) & there
        self.mask = keep_slots(self.cache, seen, kept, padded_anywhere(self.model.base), IDLE)
        return macro.last[row, length - 1], macro.context[row, length - 1]

    @property
    def slots(self) -> int:
        """See `MacroCache`."""
        return int(self.mask.sum(1).max()) if len(self.mask) else 0


def _tokens(e: Tensor, there: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Segments [R, M, d] cut to the longest one, which tokens there are, how many, and their positions [R, n]."""
    length = there.sum(1)
    n = int(length.max())
    slot = torch.arange(n, device=e.device)
    return e[:, :n], there[:, :n], length, position[:, None] + 1 + torch.minimum(slot, length[:, None] - 1)


def _longer(mask: Tensor, new: Tensor) -> Tensor:
    """[R, slots + n] with slots that a row sees, or not."""
    return torch.cat([mask, new.to(mask.dtype)], 1)


def _as_they_are(states: Tensor) -> Tensor:
    return states
