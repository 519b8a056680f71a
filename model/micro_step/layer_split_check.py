"""Whether a base can be read in two parts, or with a folded cache: tried when a model is put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.causal_lm.forward import body
from model.errors import ModelError
from model.micro_step.macro_cache import macro_cache
from model.micro_step.macro_inputs import read_segments
from model.micro_step.segment_layout import layout

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

_PROMPT, _SEGMENTS = 6, (3, 1, 2)  # tokens
_CLOSE = {torch.float32: 0.02, torch.float64: 0.02}  # relative; what is read wrongly is off by about 1
_CLOSE_IN_HALF = 0.25  # smollm2-135m's are off by 0.02 in bfloat16
_APART = 7919  # ids: words from all over the vocabulary; its first ids are of special tokens, which amplify rounding
_FAILS = (AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


def check_merge_layer(model: MicroStepPreTrainedModel) -> None:
    """Raise ModelError if a base is none that the model's `merge_layer` can be used with.

    With segments of one token it must be the whole base, and reading step by step must equal reading at once.
    """
    if model.config.merge_layer == 0 or any(weight.is_meta for weight in model.parameters()):
        return
    family = model.base.config.model_type
    refused = (
        f"merge_layer {model.config.merge_layer} cannot be had with a base of the family {family}: its layers cannot be"
        " run apart, or keep more of a text than keys and values; leave merge_layer at 0"
    )
    was = model.training, model.base.training
    model.eval()
    try:
        with torch.no_grad():
            off = _off(model)
    except (ModelError, *_FAILS) as error:  # whatever a family's own code makes of layers that are left out
        raise ModelError(refused) from error
    finally:
        model.train(was[0])
        model.base.train(was[1])
    if not off < _CLOSE.get(model.base.dtype, _CLOSE_IN_HALF):
        raise ModelError(refused)


def _off(model: MicroStepPreTrainedModel) -> float:
    """The largest relative difference between states that must be equal."""
    embed = model.get_input_embeddings()
    segments = [min(n, model.config.max_segment_length) for n in _SEGMENTS]
    ids = _APART * torch.arange(1, 1 + _PROMPT + sum(segments), device=model.device)[None] % model.config.vocab_size
    e, every = embed(ids), torch.ones_like(ids)
    single = layout(every.bool(), None, 1)
    whole = body(model.base)(inputs_embeds=e, attention_mask=every, position_ids=single.position, use_cache=False)
    off = [_relative(read_segments(model, e, single).last, whole.last_hidden_state)]
    starts, begin = every.bool(), _PROMPT
    for n in segments:
        starts[:, begin + 1 : begin + n] = False
        begin += n
    at_once = read_segments(model, e, layout(starts, None, max(segments)))
    cache = macro_cache(model)
    cache.read(ids[:, :_PROMPT], every[:, :_PROMPT])
    begin = _PROMPT
    for s, n in enumerate(segments, _PROMPT):
        last, context = cache.step(e[:, begin : begin + n], every[:, :n].bool())
        off += [_relative(last, at_once.last[:, s]), _relative(context, at_once.context[:, s])]
        begin += n
    return max(off)


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).float().norm() / b.float().norm().clamp(min=1e-12))
