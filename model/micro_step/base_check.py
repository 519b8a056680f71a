"""Check that a model can be the base of a micro_step model: when it is built, and before the first generation.

A base that cannot continue exactly from its cache is refused in one sentence that names its family. Lossless decoding
is refused if rejected tokens cannot be removed from the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.causal_lm.forward import body, context_length
from model.causal_lm.kv_cache import growing_cache
from model.causal_lm.parts import family_of, text_config
from model.causal_lm.probe import FAULTS, close, once, some_ids
from model.errors import ModelError, first_line
from model.micro_step.macro_cache import macro_cache
from model.micro_step.macro_inputs import read_segments
from model.micro_step.segment_layout import layout

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

_READ, _WRITTEN = 20, 2  # numbers of tokens, if the context holds as many
_PROMPT, _SEGMENTS = 6, (3, 1, 2)  # numbers of tokens
_TOLERANCE = {torch.float32: 0.02, torch.float64: 0.02}  # relative tolerance; wrong results are off by about 1
_TOLERANCE_IN_HALF = 0.25  # smollm2-135m is off by 0.02 in bfloat16
_ID_STEP = 7919  # spreads ids over the vocabulary, whose first ids are special tokens that amplify rounding
_FAILS = (AssertionError, AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError, ValueError)


def check_base(model: MicroStepPreTrainedModel, lossless: bool) -> None:
    """Raise ModelError if a base cannot generate in segments; with `lossless`, if a draft cannot be rolled back."""
    if model.config.micro_window or model.config.merger_window:
        raise ModelError("a model with micro_window or merger_window can be trained and scored only, not generate yet")
    if model.config.merge_layer == 0 or lossless:  # the others were tried when they were built
        why = once(model.base, "writes", lambda: _fault(model, False))
        if why is not None:
            raise ModelError(f"{family_of(model)} cannot generate in segments: {why}")
    if lossless and once(model.base, "takes back", lambda: _fault(model, True)) is not None:
        raise ModelError(
            f"{family_of(model)} keeps states that cannot be rolled back, which lossless decoding needs when a draft"
            " is refused; use merged decoding"
        )


def _inputs(model: MicroStepPreTrainedModel) -> tuple[Tensor, Tensor, Tensor]:
    """Return embeddings [1, N, d] of a few tokens, their mask and their positions."""
    limit = context_length(model.base) or _READ + _WRITTEN
    ids = some_ids(model.base, tokens=min(_READ + _WRITTEN, limit))
    return (
        model.get_input_embeddings()(ids),
        torch.ones_like(ids),
        torch.arange(ids.shape[1], device=ids.device)[None],
    )


def _fault(model: MicroStepPreTrainedModel, lossless: bool) -> str | None:
    """Return why a base cannot continue from its cache (after a draft is rolled back if `lossless`), or None."""
    embeds, mask, position = _inputs(model)
    n = embeds.shape[1] - _WRITTEN
    try:
        whole = model.macro(embeds, mask, position)
        cache = growing_cache() if lossless else growing_cache(text_config(model))
        parts = [model.macro(embeds[:, :n], mask[:, :n], position[:, :n], cache)]
        if lossless:
            model.macro(embeds.flip(1)[:, :_WRITTEN], mask, position[:, n:], cache)
            cache.crop(-_WRITTEN)
        parts += [
            model.macro(embeds[:, i : i + 1], mask[:, : i + 1], position[:, i : i + 1], cache)
            for i in range(n, n + _WRITTEN)
        ]
        if whole.context.shape[-1] != embeds.shape[-1] or whole.context.ndim != 4:
            return "its layers pass on more than one state of the embeddings' size per token"
        model.micro(whole.context[:, -1], embeds[:, :1], model.micro.new_cache())
    except FAULTS as error:
        return f"its code cannot continue from embeddings and a standard cache ({first_line(error)})"
    if not close(torch.cat([part.last for part in parts], 1), whole.last):
        return "continuing from its cache does not give the same result as reading the whole text"
    return None


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
    prompt = None if model.config.prompt_adapter else torch.tensor([_PROMPT], device=model.device)
    at_once = read_segments(model, embeds, layout(starts, None, max(segments)), prompt=prompt)
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
