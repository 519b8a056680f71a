"""The inputs of the base for segments, below and above the layer at which they are merged.

k = `merge_layer`. At k = 0 the embeddings of a segment become one, and the base runs over these. In between, the first
k layers read every token, and the others one slot per segment: its last token's state plus the merger's correction, at
the last token's position. With k = all layers nothing is merged: the base reads every token, but of earlier segments it
sees only the slots that are kept (cache_folding.py).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from model.causal_lm.forward import body
from model.causal_lm.kv_cache import growing_cache
from model.causal_lm.layer_split import part_cache, run_lower, run_upper
from model.causal_lm.partial_adapter import adapter_acting
from model.causal_lm.past import past_name
from model.errors import ModelError
from model.micro_step.cache_folding import read_with_folded_cache
from model.micro_step.outputs import Macro, layer_outputs
from model.micro_step.segment_layout import Layout, layout

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

_PAST = "past_key_values"
Gather = Callable[[Tensor], Tensor]  # [B, N, d] -> [B, S, d]


@dataclass(frozen=True)
class MacroInputs:
    """The inputs of a part of the base besides embeddings: mask, positions and cache."""

    mask: Tensor  # [B, N] or [B, S]; with a cache its slots too
    position: Tensor  # [B, N] or [B, S]
    cache: DynamicCache | None = None
    adapted: Tensor | bool | None = None
    """Where an adapter acts that is off for prompts: [B, N] or [B, S] bool; None: as around this call."""

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of a body's `forward`."""
        return {
            "attention_mask": self.mask.long(),
            "position_ids": self.position,
            "past_key_values": self.cache,
            "use_cache": self.cache is not None,
        }

    def acting(self) -> AbstractContextManager[None]:
        """Return a block in which the adapter acts where it should."""
        return nullcontext() if self.adapted is None else adapter_acting(self.adapted)


def read_segments(
    model: MicroStepPreTrainedModel,
    embeds: Tensor,
    plan: Layout,
    output_attentions: bool = False,
    prompt: Tensor | None = None,
) -> Macro:
    """Run the base over the segments of a batch, from their tokens' embeddings [B, N, d].

    Args:
        model: the model whose base is run.
        embeds: the tokens' embeddings.
        plan: their segments; every token of a prompt is one.
        output_attentions: return the attention of all layers.
        prompt: [B] number of tokens of each prompt, which a model without `prompt_adapter` reads without its adapter;
            None: everything was written.
    """
    tokens: Tensor | bool = True if prompt is None else plan.position >= prompt[:, None]
    steps: Tensor | bool = True if prompt is None else plan.macro_position >= prompt[:, None]
    if model.config.merge_layer == 0:
        with adapter_acting(steps):
            return model.macro(
                _folded(model, embeds, plan), plan.segments, plan.macro_position, None, output_attentions
            )
    if model.config.folds_cache:
        with adapter_acting(tokens):
            return read_with_folded_cache(model, embeds, plan, output_attentions)
    return read_in_parts(
        model,
        embeds,
        MacroInputs(plan.real, plan.position, adapted=tokens),
        MacroInputs(plan.segments, plan.macro_position, adapted=steps),
        fold=lambda states: _folded(model, states, plan),
        last=plan.at_last,
        output_attentions=output_attentions,
    )


def read_in_parts(
    model: MicroStepPreTrainedModel,
    embeds: Tensor,
    tokens: MacroInputs,
    steps: MacroInputs,
    fold: Gather,
    last: Gather,
    output_attentions: bool = False,
) -> Macro:
    """Run the base's first k layers over embeddings [B, N, d], and the others over S macro steps, 0 < k < layers.

    Args:
        model: the model whose base is run.
        embeds: the tokens' embeddings.
        tokens: inputs of the first layers.
        steps: inputs of the other layers.
        fold: maps the states after layer k to macro steps.
        last: selects the states of the macro steps' last tokens.
        output_attentions: return the attention of all layers.
    """
    inner, k, wanted = body(model.base), model.config.merge_layer, model.config.context_layers[:-1]
    with layer_outputs(inner, [layer for layer in wanted if layer <= k]) as below, tokens.acting():
        lower = run_lower(inner, k, output_attentions, inputs_embeds=embeds, **tokens.options)
    with layer_outputs(inner, [layer for layer in wanted if layer > k]) as above, steps.acting():
        out = run_upper(inner, k, fold(lower.states), lower.tuples, output_attentions, **steps.options)
    context = torch.stack([*map(last, below), *above, out.last_hidden_state], dim=2)
    attentions = (*lower.attentions, *out.attentions) if output_attentions else None
    return Macro(out.last_hidden_state, context, attentions)


def read_after_prompt(model: MicroStepPreTrainedModel, embeds: Tensor, plan: Layout, prompt: Tensor) -> Macro:
    """As `read_segments`, but read the prompts first and without gradients: a backward pass leaves them out.

    Args:
        model: the model whose base is run.
        embeds: the tokens' embeddings, [B, N, d], padded on the right.
        plan: their segments; every token of a prompt is one, and the token after it starts one.
        prompt: [B] number of tokens of each prompt, at least 1.

    Raises:
        ModelError: the model folds the cache alone or has a merger_window, or its base keeps more than keys and values.
    """
    k, layers = int(model.config.merge_layer), int(model.config.num_hidden_layers)
    if model.config.folds_cache or model.config.merger_window or past_name(model.base) not in (None, _PAST):
        raise ModelError("this model cannot read its prompts apart: leave out prompt_gradients")
    row, column = (torch.arange(size, device=embeds.device) for size in embeds.shape[:2])
    row, longest = row[:, None], int(prompt.max())
    before = prompt[:, None] - longest + column[:longest]  # the prompts' ends are aligned
    seen, before = before >= 0, before.clamp(min=0)
    after = prompt[:, None] + column[: int((plan.real.sum(1) - prompt).max().clamp(min=1))]
    real, after = after < plan.real.sum(1, keepdim=True), after.clamp(max=embeds.shape[1] - 1)
    answer = layout(plan.starts[row, after] & real, real, model.config.max_segment_length)
    tokens, position = torch.cat([seen, real], 1), prompt[:, None] + answer.position
    steps, step_position = torch.cat([seen, answer.segments], 1), prompt[:, None] + answer.macro_position
    if k == 0:
        cache = growing_cache()
        with torch.no_grad(), adapter_acting(model.config.prompt_adapter):
            first = model.macro(embeds[row, before], seen, before, cache)
        second = model.macro(_folded(model, embeds[row, after], answer), steps, step_position, cache)
    else:
        lower, upper = part_cache(range(k), layers), part_cache(range(k, layers), layers)
        with torch.no_grad(), adapter_acting(model.config.prompt_adapter):
            inputs = MacroInputs(seen, before, lower), MacroInputs(seen, before, upper)
            first = read_in_parts(model, embeds[row, before], *inputs, fold=lambda s: s, last=lambda s: s)
        second = read_in_parts(
            model,
            embeds[row, after],
            MacroInputs(tokens, position, lower),
            MacroInputs(steps, step_position, upper),
            fold=lambda states: _folded(model, states, answer),
            last=answer.at_last,
        )
    rows, slots = seen.nonzero(as_tuple=True)
    more_rows, more_slots = answer.segments.nonzero(as_tuple=True)
    at = torch.cat([rows, more_rows]), torch.cat([before[rows, slots], prompt[more_rows] + more_slots])

    def whole(ours: Tensor, theirs: Tensor) -> Tensor:
        out = theirs.new_zeros(*plan.lengths.shape, *theirs.shape[2:])
        return out.index_put(at, torch.cat([ours[rows, slots], theirs[more_rows, more_slots]]))

    return Macro(whole(first.last, second.last), whole(first.context, second.context), None)


def merged(model: MicroStepPreTrainedModel, embeds: Tensor, valid: Tensor) -> Tensor:
    """Return [Q, d], the macro steps of segments [Q, M, d]; segments of one token are unchanged.

    Args:
        model: the model whose merger is used.
        embeds: the tokens' embeddings, or with `merge_layer` their states after that layer.
        valid: [Q, M] bool, which tokens exist, from the left.
    """
    if model.config.merger_window:
        raise ModelError("a model with merger_window can be trained and scored only: it cannot generate yet")
    several = valid[:, 1] if valid.shape[1] > 1 else torch.zeros_like(valid[:, 0])
    out = embeds[:, 0]
    chosen = several.nonzero()[:, 0]
    if len(chosen):
        out = out.index_put((chosen,), model.merger(embeds[chosen], valid[chosen]).to(out.dtype))
    return out


def _folded(model: MicroStepPreTrainedModel, embeds: Tensor, plan: Layout) -> Tensor:
    """Return [B, S, d], one macro step per segment, from embeddings or states [B, N, d]."""
    out = plan.at_last(embeds)
    rows, segments = (plan.lengths > 1).nonzero(as_tuple=True)
    if len(rows):
        tokens, valid = plan.slots(rows, segments, int(plan.lengths.max()))
        before = embeds[rows[:, None], plan.before(rows, segments, model.config.merger_window)]
        steps = model.merger(embeds[rows[:, None], tokens], valid, before)
        out = out.index_put((rows, segments), steps.to(out.dtype))
    return out
