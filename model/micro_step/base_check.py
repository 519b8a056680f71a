"""Check that a model can be the base of a micro_step model, by trying it before the first generation.

A base that cannot continue exactly from its cache is refused in one sentence that names its family. Lossless decoding
is refused if rejected tokens cannot be removed from the cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.causal_lm.forward import context_length
from model.causal_lm.kv_cache import growing_cache
from model.causal_lm.parts import family_of, text_config
from model.causal_lm.probe import FAULTS, close, first_line, once, some_ids
from model.errors import ModelError

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

_READ, _WRITTEN = 20, 2  # numbers of tokens, if the context holds as many


def check_base(model: MicroStepPreTrainedModel, lossless: bool) -> None:
    """Raise ModelError if a base cannot generate in segments; with `lossless`, if a draft cannot be rolled back."""
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
