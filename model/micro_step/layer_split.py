"""A body in two parts: its first k layers over some inputs, the others over other ones, both with the body's weights.

Each part runs the family's own `forward` on a shallow copy of the body, in which placeholders stand for the layers
that it leaves out, so that masks, rotary positions, kinds of layers and cache indices remain the family's own. In the
upper part the first placeholder gives the states to read: what a family does to its embeddings (scales, adds
positions) is thrown away. The lower part's states are taken before the final norm.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DummyLayer
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from model.causal_lm.kv_cache import growing_cache
from model.micro_step.micro_decoder import layers_of


@dataclass(frozen=True)
class Lower:
    """What the first layers give."""

    states: Tensor  # [B, N, d] after layer k, without the final norm
    attentions: tuple[Tensor, ...]  # a layer [B, H, N, N], if asked for
    tuples: bool  # whether the family's layers return tuples


class _Layer:
    """A layer, or what stands for it; a family may ask it for whatever attribute the layer has."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)


class _Watched(_Layer):
    """Runs the layer, and says whether it returned a tuple."""

    tuples = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self.layer(*args, **kwargs)
        self.tuples = isinstance(out, tuple)
        return out


class _HandsOn(_Layer):
    """Keeps the states that reach it, and hands them on as they are."""

    def __init__(self, layer: nn.Module, like: _Watched) -> None:
        super().__init__(layer)
        self.like = like
        self.states: Tensor | None = None

    def __call__(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        self.states = hidden_states
        return (hidden_states,) if self.like.tuples else hidden_states


class _Gives(_Layer):
    """Gives states in place of whatever reaches it."""

    def __init__(self, layer: nn.Module, states: Tensor, tuples: bool) -> None:
        super().__init__(layer)
        self.states, self.tuples = states, tuples

    def __call__(self, *_: Any, **__: Any) -> Any:
        return (self.states,) if self.tuples else self.states


def run_lower(inner: nn.Module, k: int, output_attentions: bool = False, **inputs: Any) -> Lower:
    """Run the first k layers of a body, 0 < k < layers; `inputs` as its own `forward` takes them."""
    layers = list(layers_of(inner))
    first = _Watched(layers[0])
    rest = [_HandsOn(layer, first) for layer in layers[k:]]
    out = _run(inner, [first, *layers[1:k], *rest], output_attentions, inputs)
    states = rest[0].states
    assert states is not None
    return Lower(states, tuple(out.attentions or ()) if output_attentions else (), first.tuples)


def run_upper(
    inner: nn.Module, k: int, states: Tensor, tuples: bool = False, output_attentions: bool = False, **inputs: Any
) -> Any:
    """Run the layers above the k-th over states [B, S, d], and the final norm; gives the body's own output."""
    layers = list(layers_of(inner))
    given = [_Gives(layer, states, tuples) for layer in layers[:k]]
    return _run(inner, [*given, *layers[k:]], output_attentions, {**inputs, "inputs_embeds": states})


def _run(inner: nn.Module, layers: list[Any], output_attentions: bool, inputs: dict[str, Any]) -> Any:
    if output_attentions:
        maybe_install_capturing_hooks(inner)  # on the body: a copy would hook the same layers again
        inputs = {**inputs, "output_attentions": True}
    return _with_layers(inner, layers)(**inputs)


def _with_layers(inner: nn.Module, layers: list[Any]) -> nn.Module:
    """A shallow copy of a body with other layers."""
    whole = layers_of(inner)
    path = next(name for name, module in inner.named_modules() if module is whole)
    *parents, last = path.split(".")
    out = at = copy.copy(inner)
    for name in parents:
        at._modules = {**at._modules, name: copy.copy(at._modules[name])}
        at = at._modules[name]  # type: ignore[assignment]
    at._modules = {name: module for name, module in at._modules.items() if name != last}
    at.__dict__[last] = layers  # found as an attribute, and never as a module
    return out


def part_cache(part: range, layers: int, config: PretrainedConfig | None = None) -> DynamicCache:
    """An empty cache for some layers of a body; with a configuration, those that slide do."""
    cache = growing_cache(config)
    whole = cache.layers if config is not None else [cache.layer_class_to_replicate() for _ in range(layers)]
    cache.layers = [layer if i in part else DummyLayer() for i, layer in enumerate(whole)]
    cache.layer_class_to_replicate = None
    return cache
