"""From tokens to macro steps: what the base reads of segments, below and above the layer at which they are merged.

k = `merge_layer`. At 0 the embeddings of a segment become one, and the base runs over these. Between, its first k
layers read every token, and the others one slot a segment: its last token's state and the merger's correction, at the
last token's position. At all layers nothing is merged: the base reads every token, and of earlier segments sees only
the slots that are kept (folding.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from model.causal_lm.forward import body
from model.micro_step.cache_folding import read_with_folded_cache
from model.micro_step.layer_split import run_lower, run_upper
from model.micro_step.outputs import Macro, states_of
from model.micro_step.segment_layout import Layout

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

Gather = Callable[[Tensor], Tensor]  # [B, N, d] -> [B, S, d]


@dataclass(frozen=True)
class MacroInputs:
    """Where a part of the base reads, and what it has read before."""

    mask: Tensor  # [B, N], or [B, S]; with a cache its slots too
    position: Tensor  # [B, N] or [B, S]
    cache: DynamicCache | None = None

    @property
    def options(self) -> dict[str, Any]:
        """As a body's `forward` takes them."""
        return {
            "attention_mask": self.mask.long(),
            "position_ids": self.position,
            "past_key_values": self.cache,
            "use_cache": self.cache is not None,
        }


def read_segments(model: MicroStepPreTrainedModel, e: Tensor, plan: Layout, output_attentions: bool = False) -> Macro:
    """Run the base over segments of a batch, from their tokens' embeddings [B, N, d]."""
    if model.config.merge_layer == 0:
        steps = _folded(model, e, plan)
        return model.macro(steps, plan.segments, plan.macro_position, None, output_attentions)
    if model.config.folds_cache:
        return read_with_folded_cache(model, e, plan, output_attentions)
    return read_in_parts(
        model,
        e,
        MacroInputs(plan.real, plan.position),
        MacroInputs(plan.segments, plan.macro_position),
        fold=lambda states: _folded(model, states, plan),
        last=plan.at_last,
        output_attentions=output_attentions,
    )


def read_in_parts(
    model: MicroStepPreTrainedModel,
    e: Tensor,
    tokens: MacroInputs,
    steps: MacroInputs,
    fold: Gather,
    last: Gather,
    output_attentions: bool = False,
) -> Macro:
    """Run the base's first k layers over embeddings [B, N, d], and the others over S macro steps, 0 < k < layers.

    Args:
        model: whose base is run.
        e: the tokens' embeddings.
        tokens: of the first layers.
        steps: of the others.
        fold: the macro steps of the states after layer k.
        last: the states of the macro steps' last tokens.
        output_attentions: of all layers.
    """
    inner, k, wanted = body(model.base), model.config.merge_layer, model.config.context_layers[:-1]
    with states_of(inner, [layer for layer in wanted if layer <= k]) as below:
        lower = run_lower(inner, k, output_attentions, inputs_embeds=e, **tokens.options)
    with states_of(inner, [layer for layer in wanted if layer > k]) as above:
        out = run_upper(inner, k, fold(lower.states), lower.tuples, output_attentions, **steps.options)
    context = torch.stack([*map(last, below), *above, out.last_hidden_state], dim=2)
    attentions = (*lower.attentions, *out.attentions) if output_attentions else None
    return Macro(out.last_hidden_state, context, attentions)


def merged(model: MicroStepPreTrainedModel, e: Tensor, there: Tensor) -> Tensor:
    """[Q, d] the macro steps of segments [Q, M, d], those of one token unchanged.

    Args:
        model: whose merger is used.
        e: the tokens' embeddings, or with `merge_layer` their states after that layer.
        there: [Q, M] which tokens there are, the first ones.
    """
    several = there[:, 1] if there.shape[1] > 1 else torch.zeros_like(there[:, 0])
    out = e[:, 0]
    chosen = several.nonzero()[:, 0]
    if len(chosen):
        out = out.index_put((chosen,), model.merger(e[chosen], there[chosen]).to(out.dtype))
    return out


def _folded(model: MicroStepPreTrainedModel, e: Tensor, plan: Layout) -> Tensor:
    """[B, S, d] one macro step a segment, of embeddings or states [B, N, d]."""
    out = plan.at_last(e)
    rows, segments = (plan.lengths > 1).nonzero(as_tuple=True)
    if len(rows):
        tokens, there = plan.slots(rows, segments, int(plan.lengths.max()))
        steps = model.merger(e[rows[:, None], tokens], there)
        out = out.index_put((rows, segments), steps.to(out.dtype))
    return out
