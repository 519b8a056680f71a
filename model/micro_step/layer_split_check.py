"""Check, when a model is built, that its base can be read in two parts or with a folded cache."""

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

_PROMPT, _SEGMENTS = 6, (3, 1, 2)  # numbers of tokens
_TOLERANCE = {torch.float32: 0.02, torch.float64: 0.02}  # relative tolerance; wrong results are off by about 1
_TOLERANCE_IN_HALF = 0.25  # smollm2-135m is off by 0.02 in bfloat16
_ID_STEP = 7919  # spreads ids over the vocabulary, whose first ids are special tokens that amplify rounding
_FAILS = (AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


def check_merge_layer(model: MicroStepPreTrainedModel) -> None:
    """Raise ModelError if a base cannot be used with the model's `merge_layer`.

    With segments of one token the result must equal the whole base's, and reading step by step must equal reading at
    once.
    """
    if model.config.merge_layer == 0 or any(weight.is_meta for weight in model.parameters()):
        return
    family = model.base.config.model_type
    refused = (
        f"merge_layer {model.config.merge_layer} does not work with a base of the family {family}: its layers cannot be"
        " run separately, or keep more of a text than keys and values; leave merge_layer at 0"
    )
    was = model.training, model.base.training
    model.eval()
    try:
        with torch.no_grad():
            error = _largest_error(model)
    except (ModelError, *_FAILS) as failure:  # a family's own code may fail in any way if layers are left out
        raise ModelError(refused) from failure
    finally:
        model.train(was[0])
        model.base.train(was[1])
    if not error < _TOLERANCE.get(model.base.dtype, _TOLERANCE_IN_HALF):
        raise ModelError(refused)


def _largest_error(model: MicroStepPreTrainedModel) -> float:
    """Return the largest relative difference between states that must be equal."""
    embed = model.get_input_embeddings()
    segments = [min(n, model.config.max_segment_length) for n in _SEGMENTS]
    ids = _ID_STEP * torch.arange(1, 1 + _PROMPT + sum(segments), device=model.device)[None] % model.config.vocab_size
    embeds, every = embed(ids), torch.ones_like(ids)
    single = layout(every.bool(), None, 1)
    whole = body(model.base)(inputs_embeds=embeds, attention_mask=every, position_ids=single.position, use_cache=False)
    errors = [_relative(read_segments(model, embeds, single).last, whole.last_hidden_state)]
    starts, begin = every.bool(), _PROMPT
    for n in segments:
        starts[:, begin + 1 : begin + n] = False
        begin += n
    at_once = read_segments(model, embeds, layout(starts, None, max(segments)))
    cache = macro_cache(model)
    cache.read(ids[:, :_PROMPT], every[:, :_PROMPT])
    begin = _PROMPT
    for s, n in enumerate(segments, _PROMPT):
        last, context = cache.step(embeds[:, begin : begin + n], every[:, :n].bool())
        errors += [_relative(last, at_once.last[:, s]), _relative(context, at_once.context[:, s])]
        begin += n
    return max(errors)


def _relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).float().norm() / b.float().norm().clamp(min=1e-12))
