"""Run a body in two parts, its first k layers over some inputs and the others over others, with the body's weights.

Each part runs the family's own `forward` on a shallow copy of the body, with placeholders for the layers that it leaves
out. Masks, rotary positions, kinds of layers and cache indices thus remain the family's own. In the upper part, the
first placeholder returns the states to read, which replaces whatever a family does to its embeddings (scaling,
positions). The lower part's states are taken before the final norm.
"""

import copy
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers import DynamicCache, PretrainedConfig
from transformers.utils.output_capturing import maybe_install_capturing_hooks

from model.causal_lm.kv_cache import DummyLayer, growing_cache
from model.causal_lm.parts import layers_of


@dataclass(frozen=True)
class Lower:
    """What the first layers give."""

    states: Tensor  # [B, N, d] after layer k, without the final norm
    attentions: tuple[Tensor, ...]  # [B, H, N, N] per layer, if requested
    tuples: bool  # whether the family's layers return tuples


class _LayerProxy:
    """A layer or its placeholder; it passes on every attribute that a family may read from the layer."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self.layer, name)


class _RecordingLayer(_LayerProxy):
    """Runs the layer, and records whether it returned a tuple."""

    tuples = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = self.layer(*args, **kwargs)
        self.tuples = isinstance(out, tuple)
        return out


class _PassThrough(_LayerProxy):
    """Keeps the states that reach it, and returns them unchanged."""

    def __init__(self, layer: nn.Module, like: _RecordingLayer) -> None:
        super().__init__(layer)
        self.like = like
        self.states: Tensor | None = None

    def __call__(self, hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        self.states = hidden_states
        return (hidden_states,) if self.like.tuples else hidden_states


class _ConstantLayer(_LayerProxy):
    """Returns given states instead of its input."""

    def __init__(self, layer: nn.Module, states: Tensor, tuples: bool) -> None:
        super().__init__(layer)
        self.states, self.tuples = states, tuples

    def __call__(self, *_: Any, **__: Any) -> Any:
        return (self.states,) if self.tuples else self.states


def run_lower(inner: nn.Module, k: int, output_attentions: bool = False, **inputs: Any) -> Lower:
    """Run the first k layers of a body, 0 < k < layers; `inputs` are arguments of its own `forward`."""
    layers = list(layers_of(inner))
    first = _RecordingLayer(layers[0])
    rest = [_PassThrough(layer, first) for layer in layers[k:]]
    out = _run(inner, [first, *layers[1:k], *rest], output_attentions, inputs)
    states = rest[0].states
    assert states is not None
    return Lower(states, tuple(out.attentions or ()) if output_attentions else (), first.tuples)


def run_upper(
    inner: nn.Module, k: int, states: Tensor, tuples: bool = False, output_attentions: bool = False, **inputs: Any
) -> Any:
    """Run the layers above the k-th, and the final norm, over states [B, S, d]; return the body's own output."""
    layers = list(layers_of(inner))
    given = [_ConstantLayer(layer, states, tuples) for layer in layers[:k]]
    return _run(inner, [*given, *layers[k:]], output_attentions, {"inputs_embeds": states, **inputs})


def _run(inner: nn.Module, layers: list[Any], output_attentions: bool, inputs: dict[str, Any]) -> Any:
    if output_attentions:
        maybe_install_capturing_hooks(inner)  # on the body: a copy would hook the same layers again
        inputs = {**inputs, "output_attentions": True}
    return _with_layers(inner, layers)(**inputs)


def _with_layers(inner: nn.Module, layers: list[Any]) -> nn.Module:
    whole = layers_of(inner)
    path = next(name for name, module in inner.named_modules() if module is whole)
    *parents, last = path.split(".")
    out = at = copy.copy(inner)
    for name in parents:
        at._modules = {**at._modules, name: copy.copy(at._modules[name])}
        at = at._modules[name]  # type: ignore[assignment]
    at._modules = {name: module for name, module in at._modules.items() if name != last}
    at.__dict__[last] = layers  # found as an attribute, but never as a module
    return out


def part_cache(part: range, layers: int, config: PretrainedConfig | None = None) -> DynamicCache:
    """Return an empty cache for some layers of a body; with a configuration, its sliding layers slide."""
    cache = growing_cache(config)
    whole = cache.layers if config is not None else [cache.layer_class_to_replicate() for _ in range(layers)]
    cache.layers = [layer if i in part else DummyLayer() for i, layer in enumerate(whole)]
    cache.layer_class_to_replicate = None
    return cache
