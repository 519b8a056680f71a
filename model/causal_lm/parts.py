"""A causal language model taken apart by what transformers says of every one: its body, and the head around it."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from model.errors import ModelError


def token_model(model: PreTrainedModel) -> PreTrainedModel:
    """The language model that reads one token at a time: of a micro_step model its base, else the model itself."""
    return model.base if model.config.model_type == "micro_step" else model


def family_of(model: PreTrainedModel) -> str:
    """What transformers calls the family of the model that reads tokens, for sentences about it."""
    return str(token_model(model).config.model_type)


def text_config(model: PreTrainedModel) -> Any:
    """The configuration of the language model, where a model holds others too."""
    return token_model(model).config.get_text_config()


def option(config: Any, name: str) -> Any:
    """An option of a transformers config, the largest where the layers differ; None where it has none."""
    try:
        return getattr(config, name, None)
    except (ValueError, RuntimeError):  # transformers refuses to name one for all layers
        told = [getattr(layer, name, None) for layer in config.per_layer_config]
        return max((value for value in told if value is not None), default=None)


def body_name(model: PreTrainedModel) -> str:
    """Under which name a model holds its body: the one that its class states, else that of its first inner model.

    Raises:
        ModelError: it has none.
    """
    model = token_model(model)
    if model.base_model_prefix in model._modules:
        return str(model.base_model_prefix)
    for name, part in model.named_children():
        if isinstance(part, PreTrainedModel):
            return str(name)
    raise ModelError(f"{family_of(model)} has no body apart from its head, so it cannot be used")


def body(model: PreTrainedModel) -> nn.Module:
    """The model without its LM head."""
    inner: nn.Module = getattr(token_model(model), body_name(model))
    return inner


def decoder(model: PreTrainedModel) -> nn.Module:
    """The part of a body that reads text, in a model that reads other things too; else the body."""
    inner = body(model)
    text: nn.Module = getattr(inner, "language_model", inner)
    return text


class _HandedOn(BaseModelOutput):  # type: ignore[misc]
    """A body's output of which a family may ask whatever it knows: router logits, caches. There is none."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _handing_on(module: nn.Module, hidden: Tensor) -> nn.Module:
    """A copy of a body that gives states [1, C, d] whatever it is told, and so does a decoder inside it.

    It keeps the body's attributes, since some heads read their settings there, and none of its hooks: the body has run.
    """
    out = copy.copy(module)
    out._forward_hooks, out._forward_pre_hooks = OrderedDict(), OrderedDict()
    out.forward = lambda *_, **__: _HandedOn(last_hidden_state=hidden)
    out._modules = {
        name: _handing_on(part, hidden) if isinstance(part, PreTrainedModel) else part
        for name, part in module._modules.items()
    }
    return out


def head_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """[C, V] logits of last hidden states [C, d], by the family's own `forward` around a body that hands them on.

    It runs on a shallow copy that shares the weights, so that nothing has to know of any family's scaling or soft cap.
    """
    model = token_model(model)
    head = copy.copy(model)
    head._modules = {**model._modules, body_name(model): _handing_on(body(model), hidden[None])}
    logits: Tensor = head(inputs_embeds=hidden[None], use_cache=False).logits[0]
    return logits
