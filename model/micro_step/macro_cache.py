"""The base's memory of rows that are generated segment by segment: its cache, what each row sees of it, and positions.

Every token of a prompt is a macro step of its own. The tokens of a segment are read when the next macro step starts,
for all rows together; of the slots that this adds to a cache, each row keeps its own.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor
from transformers import DynamicCache

from model.causal_lm.kv_cache import (
    MAX_IDLE,
    growing_cache,
    join_rows,
    joined_masks,
    keep_slots,
    padded_anywhere,
    rows_may_join,
    without_idle_start,
)
from model.causal_lm.layer_split import part_cache
from model.decoding.session import finish, read_prompts
from model.micro_step.cache_folding import kept_slots
from model.micro_step.macro_inputs import MacroInputs, merged, read_in_parts
from model.micro_step.outputs import Macro

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

# The base's states at each row's last macro step: [R, d], and [R, K, d] of the context layers.
States = tuple[Tensor, Tensor]


def macro_cache(model: MicroStepPreTrainedModel) -> MacroCache:
    """Return an empty macro cache for the layer at which a model merges."""
    if model.config.merge_layer == 0:
        return MacroCache(model, growing_cache(model.base.config.get_text_config()))
    return _Folded(model, growing_cache()) if model.config.folds_cache else _InParts(model)


class MacroCache:
    """A cache of R rows that are merged before the first layer: one slot per segment."""

    def __init__(self, model: MicroStepPreTrainedModel, cache: DynamicCache) -> None:
        self.model, self.cache = model, cache
        self.mask = self.position = torch.zeros(
            0
        )  # [R, slots], 0 for slots that a row does not see; [R] positions of the last tokens

    def read(self, input_ids: Tensor, mask: Tensor) -> States:
        """Read prompts [R, P], padded on the left, into the empty cache."""
        return finish(self.reading(input_ids, mask, None))

    def reading(self, input_ids: Tensor, mask: Tensor, at_once: int | None) -> Generator[None, None, States]:
        """Read prompts, as `read`, and pause after each `at_once` tokens."""
        at_once = at_once if self.rows_may_join else None  # recurrent layers are not continued by several tokens
        last, context, self.mask, self.position = yield from read_prompts(
            self.model, input_ids, mask, self, self._read_tokens, at_once
        )
        return last, context

    def step(self, embeds: Tensor, valid: Tensor) -> States:
        """Read one more segment of each row: embeddings [R, M, d], and [R, M] bool which tokens exist."""
        self.position = self.position + valid.sum(1)
        self.mask = _extended(self.mask, valid[:, :1])
        steps = merged(self.model, embeds, valid)[:, None]
        macro = self.model.macro(steps, self.mask, self.position[:, None], self.cache)
        return macro.last[:, -1], macro.context[:, -1]

    @property
    def rows_may_join(self) -> bool:
        return rows_may_join(self.cache)

    def join(self, other: Self) -> None:
        """Append the rows of another cache."""
        join_rows(self.cache, other.cache)
        self.mask, self.position = joined_masks(self.mask, other.mask), torch.cat([self.position, other.position])

    def row_slots(self) -> list[int]:
        """Slots of each row, mean over the layers."""
        slots: list[int] = self.mask.sum(1).tolist()
        return slots

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
        if self.rows_may_join:
            self.mask = without_idle_start(self.cache, self.mask, MAX_IDLE)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row, while a prompt is read."""
        self.cache.batch_repeat_interleave(repeats)

    def _read_tokens(self, embeds: Tensor, mask: Tensor, position: Tensor) -> Macro:
        return self.model.macro(embeds, mask, position, self.cache)


class _InParts(MacroCache):
    """The first k layers have a cache of their own, with one slot per token; it keeps all, even in sliding layers."""

    def __init__(self, model: MicroStepPreTrainedModel) -> None:
        k, layers = model.config.merge_layer, model.config.num_hidden_layers
        super().__init__(model, part_cache(range(k, layers), layers, model.base.config.get_text_config()))
        self.tokens, self.tokens_mask = part_cache(range(k), layers), torch.zeros(0)
        self.anywhere = padded_anywhere(model.base)

    def reading(self, input_ids: Tensor, mask: Tensor, at_once: int | None) -> Generator[None, None, States]:
        states = yield from super().reading(input_ids, mask, at_once)
        self.tokens_mask = self.mask
        return states

    def step(self, embeds: Tensor, valid: Tensor) -> States:
        embeds, valid, length, position = _cropped(embeds, valid, self.position)
        row = torch.arange(len(embeds), device=embeds.device)
        self.position = self.position + length
        self.mask, seen = _extended(self.mask, valid[:, :1]), _extended(self.tokens_mask, valid)
        macro = read_in_parts(
            self.model,
            embeds,
            MacroInputs(seen, position, self.tokens),
            MacroInputs(self.mask, self.position[:, None], self.cache),
            fold=lambda states: merged(self.model, states, valid)[:, None],
            last=lambda states: states[row, length - 1][:, None],
        )
        self.tokens_mask = keep_slots(self.tokens, seen, valid, self.anywhere, MAX_IDLE)
        return macro.last[:, -1], macro.context[:, -1]

    def join(self, other: Self) -> None:
        super().join(other)
        join_rows(self.tokens, other.tokens)
        self.tokens_mask = joined_masks(self.tokens_mask, other.tokens_mask)

    def row_slots(self) -> list[int]:
        k, layers = int(self.model.config.merge_layer), int(self.model.config.num_hidden_layers)
        both = zip(self.tokens_mask.sum(1).tolist(), self.mask.sum(1).tolist(), strict=True)
        return [round((k * tokens + (layers - k) * steps) / layers) for tokens, steps in both]

    @property
    def slots(self) -> int:
        k, layers = int(self.model.config.merge_layer), int(self.model.config.num_hidden_layers)
        tokens = int(self.tokens_mask.sum(1).max()) if len(self.tokens_mask) else 0
        return round((k * tokens + (layers - k) * int(self.cache.get_seq_length(k))) / layers)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.tokens.batch_select_indices(indices)
        self.tokens_mask = without_idle_start(self.tokens, self.tokens_mask[indices], MAX_IDLE)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self.tokens.batch_repeat_interleave(repeats)

    def _read_tokens(self, embeds: Tensor, mask: Tensor, position: Tensor) -> Macro:
        tokens, steps = MacroInputs(mask, position, self.tokens), MacroInputs(mask, position, self.cache)
        return read_in_parts(self.model, embeds, tokens, steps, fold=_unchanged, last=_unchanged)


class _Folded(MacroCache):
    """All layers read every token; one or two slots of a segment stay."""

    def step(self, embeds: Tensor, valid: Tensor) -> States:
        embeds, valid, length, position = _cropped(embeds, valid, self.position)
        row, slot = torch.arange(len(embeds), device=embeds.device), torch.arange(embeds.shape[1], device=embeds.device)
        self.position = self.position + length
        seen = _extended(self.mask, valid)
        macro = self.model.macro(embeds, seen, position, self.cache)
        kept = kept_slots(slot, length[:, None], self.model.config.keep) & valid
        self.mask = keep_slots(self.cache, seen, kept, padded_anywhere(self.model.base), MAX_IDLE)
        return macro.last[row, length - 1], macro.context[row, length - 1]

    @property
    def slots(self) -> int:
        return int(self.mask.sum(1).max()) if len(self.mask) else 0


def _cropped(embeds: Tensor, valid: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return segments [R, M, d] cropped to the longest, which tokens exist, how many, and their positions [R, n]."""
    length = valid.sum(1)
    n = int(length.max())
    slot = torch.arange(n, device=embeds.device)
    return embeds[:, :n], valid[:, :n], length, position[:, None] + 1 + torch.minimum(slot, length[:, None] - 1)


def _extended(mask: Tensor, new: Tensor) -> Tensor:
    """Return [R, slots + n], the mask extended by new slots."""
    return torch.cat([mask, new.to(mask.dtype)], 1)


def _unchanged(states: Tensor) -> Tensor:
    return states
