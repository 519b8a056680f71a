"""Fold only the cache: every layer reads every token, and later segments see one or two slots of a segment.

A token sees the tokens of its own segment up to itself. Of earlier segments it sees the last token's slot (`keep` is
"last"), or the first and the last one's ("first_last"). A sliding window counts the slots that the token sees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.causal_lm.forward import body, text_config
from model.errors import ModelError
from model.micro_step.outputs import Macro, layer_outputs
from model.micro_step.segment_layout import Layout

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

_FULL, _SLIDING = "full_attention", "sliding_attention"


def kept_slots(slot: Tensor, lengths: Tensor, keep: str) -> Tensor:
    """Return bool: whether a token's slot is kept, from its place in its segment and the segment's length."""
    last = slot == lengths - 1
    return last | (slot == 0) if keep == "first_last" else last


def read_with_folded_cache(
    model: MicroStepPreTrainedModel, embeds: Tensor, plan: Layout, output_attentions: bool = False
) -> Macro:
    """Run the base over embeddings [B, N, d] and return its states at the segments' last tokens."""
    inner, options = body(model.base), {"output_attentions": True} if output_attentions else {}
    with layer_outputs(inner, model.config.context_layers[:-1]) as states:
        out = inner(
            inputs_embeds=embeds,
            attention_mask=_masks(model, plan, embeds.dtype),
            position_ids=plan.position,
            use_cache=False,
            **options,
        )
    context = torch.stack([plan.at_last(layer) for layer in (*states, out.last_hidden_state)], dim=2)
    return Macro(context[:, :, -1], context, out.attentions if output_attentions else None)


def _masks(model: MicroStepPreTrainedModel, plan: Layout, dtype: torch.dtype) -> Any:
    """Return the mask of what a token sees, as the family takes it: [B, 1, N, N], or one for each kind of layer."""
    config = text_config(model.base)
    layer_types = getattr(config, "layer_types", None) or getattr(config, "attention_layers", None)
    kinds = set(layer_types or [_SLIDING if _window(config) else _FULL])
    if not kinds <= {_FULL, _SLIDING}:
        raise ModelError(f"slots cannot be removed from layers of kind {', '.join(sorted(kinds - {_FULL, _SLIDING}))}")
    distance = _distance(plan, model.config.keep)
    masks = {}
    for kind in kinds:
        seen = distance >= 0
        if kind == _SLIDING:
            seen &= distance < _window(config)
        if config._attn_implementation == "eager":
            masks[kind] = torch.zeros_like(seen, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]
        else:
            masks[kind] = seen[:, None]
    return masks if len(masks) > 1 else masks.popitem()[1]


def _window(config: Any) -> int:
    return int(getattr(config, "sliding_window", None) or 0)


def _distance(plan: Layout, keep: str) -> Tensor:
    """Return [B, N, N] slots from each token back to each token that it sees, or -1; padding sees only itself."""
    lengths = plan.lengths.gather(1, plan.segment)
    kept = kept_slots(plan.slot, lengths, keep) & plan.real
    before = kept.long().cumsum(1) - kept.long()  # [B, N] number of kept slots before each token
    order = torch.arange(kept.shape[1], device=kept.device)
    opened = before.gather(1, (order - plan.slot).clamp(min=0))  # [B, N] number of kept slots before its segment
    same = plan.segment[:, :, None] == plan.segment[:, None]
    own = plan.slot[:, :, None] - plan.slot[:, None]
    far = (opened + plan.slot)[:, :, None] - before[:, None]
    causal = order[:, None] >= order
    seen = causal & plan.real[:, None] & (same | kept[:, None]) & plan.real[:, :, None]
    distance = torch.where(seen, torch.where(same, own, far), -1)
    return torch.where(plan.real[:, :, None] | (order[:, None] != order), distance, 0)
