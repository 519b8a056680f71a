"""The body of any transformers causal language model, and the head around it."""

import copy
from collections import OrderedDict
from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from model.errors import ModelError


def token_model(model: PreTrainedModel) -> PreTrainedModel:
    """Return the language model that reads token by token: the base of a micro_step model, else the model itself."""
    return model.base if model.config.model_type == "micro_step" else model


def family_of(model: PreTrainedModel) -> str:
    """Return transformers' name for the family of the model that reads tokens, for use in messages."""
    return str(token_model(model).config.model_type)


def text_config(model: PreTrainedModel) -> Any:
    """Return the configuration of the language model, even if the model holds others too."""
    return token_model(model).config.get_text_config()


def option(config: Any, name: str) -> Any:
    """Return an option of a transformers config (the largest if layers differ), or None if it has none."""
    try:
        return getattr(config, name, None)
    except (ValueError, RuntimeError):  # transformers refuses to name one value for all layers
        values = [getattr(layer, name, None) for layer in config.per_layer_config]
        return max((value for value in values if value is not None), default=None)


def body_name(model: PreTrainedModel) -> str:
    """Return the attribute name of a model's body: the one its class states, else that of its first inner model."""
    model = token_model(model)
    if model.base_model_prefix in model._modules:
        return str(model.base_model_prefix)
    for name, part in model.named_children():
        if isinstance(part, PreTrainedModel):
            return str(name)
    raise ModelError(f"{family_of(model)} has no body separate from its head, so it cannot be used")


def body(model: PreTrainedModel) -> nn.Module:
    """Return the model without its LM head."""
    inner: nn.Module = getattr(token_model(model), body_name(model))
    return inner


def decoder(model: PreTrainedModel) -> nn.Module:
    """Return the part of a body that reads text, if the model reads other things too; else the body."""
    inner = body(model)
    text: nn.Module = getattr(inner, "language_model", inner)
    return text


def layers_of(inner: nn.Module) -> nn.ModuleList:
    """Return the transformer layers of a body."""
    inner = getattr(inner, "language_model", inner)  # beside a vision tower
    candidates = [module for module in inner.children() if isinstance(module, nn.ModuleList)]  # their usual place
    if not candidates:
        candidates = [module for module in inner.modules() if isinstance(module, nn.ModuleList)]
    if not candidates:
        raise ModelError(f"no layers are found in {type(inner).__name__}, so they cannot be used")
    return max(candidates, key=len)


class _GivenStates(BaseModelOutput):  # type: ignore[misc]
    """The output of a body that answers None for anything else a family asks for, such as router logits or caches."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _returning(module: nn.Module, hidden: Tensor) -> nn.Module:
    """Return a copy of a body that outputs states [1, C, d] whatever its input, and so does a decoder inside it.

    It keeps the body's attributes, since some heads read settings there, but none of its hooks: the body has run.
    """
    out = copy.copy(module)
    out._forward_hooks, out._forward_pre_hooks = OrderedDict(), OrderedDict()
    out.forward = lambda *_, **__: _GivenStates(last_hidden_state=hidden)
    out._modules = {
        name: _returning(part, hidden) if isinstance(part, PreTrainedModel) else part
        for name, part in module._modules.items()
    }
    return out


def head_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return [C, V] logits of last hidden states [C, d].

    Runs the family's own `forward` on a shallow copy that shares the weights, around a body that outputs these states,
    so nothing here depends on a family's scaling or soft cap.
    """
    model = token_model(model)
    head = copy.copy(model)
    head._modules = {**model._modules, body_name(model): _returning(body(model), hidden[None])}
    logits: Tensor = head(inputs_embeds=hidden[None], use_cache=False).logits[0]
    return logits
