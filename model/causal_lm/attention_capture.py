"""Attention rows of chosen layers and heads, a block of queries at a time, from one pass of any transformers family.

In the pass, the chosen layers' attention functions keep the queries and keys that they are given (or hand them on at
once, so that none are kept): after the rotary position, with the family's own scaling, soft cap and mask beside them.
The rows are then computed block by block by the family's own eager function, so that nothing here has to know of any
family, and memory is O(heads x block x N).

The pass runs on copies of the modules that share the weights: the model itself is not touched, other threads may use
it meanwhile, and nothing of the run stays behind.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from model.causal_lm.finite import check_states
from model.causal_lm.forward import body, body_name, token_model
from model.errors import ModelError

_NAME = "micro_step_capture"
_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
)


@dataclass(frozen=True)
class CapturedAttention:
    """What one layer's attention was given, for one text of N positions."""

    module: nn.Module
    query: Tensor  # [1, H, N, d]
    key: Tensor  # [1, G, N, d] with H a multiple of G
    mask: Tensor | None  # [1, 1, N, N] bool, or to be added; None: causal
    options: dict[str, Any]  # scaling, soft cap, sliding window, ...

    def __post_init__(self) -> None:
        if self.query.shape[2:] != self.key.shape[2:] or self.query.shape[1] % self.key.shape[1]:
            raise ValueError(
                f"query must be [1, H, N, d] and key [1, G, N, d], got {list(self.query.shape)} and"
                f" {list(self.key.shape)}"
            )

    @property
    def heads(self) -> int:
        """H, of queries."""
        return int(self.query.shape[1])

    @property
    def device(self) -> torch.device:
        """Where the rows are computed."""
        return self.query.device

    def visible(self, begin: int, end: int) -> Tensor:
        """[end - begin, end] which keys the queries begin .. end - 1 may see."""
        if self.mask is not None:
            part = self.mask[0, 0, begin:end, :end]
            return part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2
        position = torch.arange(end, device=self.query.device)
        back = position[begin:, None] - position
        seen = back >= 0
        window = self.options.get("sliding_window")
        return seen & (back < window) if window else seen

    def rows(self, begin: int, end: int, heads: Sequence[int] | None) -> Tensor:
        """[h, end - begin, end] float32 attention of the queries begin .. end - 1; later keys have none."""
        module, query, key = self.module, self.query[:, :, begin:end], self.key[:, :, :end]
        whole = heads is None or hasattr(module, "sinks")  # sinks belong to the heads: all go through together
        if not whole:
            chosen = torch.as_tensor(heads, device=query.device)
            query, key = query[:, chosen], key[:, chosen // (self.query.shape[1] // self.key.shape[1])]
            module = copy.copy(module)
            module.num_key_value_groups = 1  # type: ignore[assignment]
        seen = self.visible(begin, end)
        mask = torch.zeros(seen.shape, device=seen.device).masked_fill_(~seen, torch.finfo(torch.float32).min)
        eager = sys.modules[type(self.module).__module__].eager_attention_forward
        key = key.float()
        # The values do not matter: any of the right shape will do.
        _, rows = eager(module, query.float(), key, key[..., :1], mask[None, None], **{**self.options, "dropout": 0.0})
        found: Tensor = rows[0]
        return found if heads is None or not whole else found[list(heads)]


class AttentionRows(Protocol):
    """Attention of one layer over N positions, a block of queries at a time."""

    @property
    def heads(self) -> int:
        """H."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the rows are computed."""
        ...

    def visible(self, begin: int, end: int) -> Tensor:
        """[end - begin, end] which keys the queries begin .. end - 1 may see."""
        ...

    def rows(self, begin: int, end: int, heads: Sequence[int] | None) -> Tensor:
        """[h, end - begin, end] float32 attention of the queries begin .. end - 1; later keys have none."""
        ...


Visit = Callable[[int, AttentionRows], None]  # told a layer and what it was given, before the layer itself goes on


class StopForward(Exception):
    """A visitor has seen what it needs: the rest of the pass is left out. Whoever started the pass catches it."""


@dataclass
class Capture:
    """The chosen layers of one run of a model."""

    model: PreTrainedModel
    implementation: str
    held: dict[int, CapturedAttention] = field(default_factory=dict)  # empty where a visitor takes them
    visit: Visit | None = None


def layers_of(inner: nn.Module) -> nn.ModuleList:
    """The layers of a model's body.

    Raises:
        ModelError: none are found.
    """
    inner = getattr(inner, "language_model", inner)  # beside a vision tower
    layers = max((m for m in inner.modules() if isinstance(m, nn.ModuleList)), key=len, default=None)
    if layers is None:
        raise ModelError(f"no layers are found in {type(inner).__name__}, so its attention cannot be read")
    return layers


def private_copy(model: PreTrainedModel) -> PreTrainedModel:
    """The model with modules of its own that share the weights: hooks and settings put on it stay on it."""
    model = token_model(model)
    private: PreTrainedModel = copy.copy(model)
    private._modules = {**model._modules, body_name(model): _copy(body(model))}
    return private


def _copy(module: nn.Module) -> nn.Module:
    new = copy.copy(module)
    new._modules = {name: None if child is None else _copy(child) for name, child in module._modules.items()}
    new._buffers = dict(module._buffers)
    for name in _HOOKS:
        setattr(new, name, copy.copy(getattr(module, name)))
    return new


def capture(private: PreTrainedModel, layers: Sequence[int], visit: Visit | None = None) -> Capture:
    """Let these layers of a `private_copy` keep what their attention is given, in the pass that follows.

    Args:
        private: of which model.
        layers: which, from 0.
        visit: is given each layer's in its turn, and nothing is kept; may raise `StopForward` to leave the pass.

    In the pass, NumericalError is raised where queries or keys of these layers are not finite.
    """
    found = Capture(private, str(private.config._attn_implementation or "eager"), visit=visit)
    all_layers = layers_of(body(private))
    for i in layers:
        for part in all_layers[i].modules():
            module = cast("Any", part)
            if hasattr(module, "config"):
                module.config = copy.copy(module.config)
                module.config._attn_implementation_internal = _NAME
                module.captured = found, i
    return found


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> Any:
    """Keep the arguments, then do as the model would have done."""
    found, layer = cast("tuple[Capture, int]", module.captured)
    for given in (query, key):  # [1, H, N, d]
        check_states(found.model, given[0].transpose(0, 1), f"queries or keys in layer {layer}", "positions")
    attended = CapturedAttention(_bare(module), query, key, attention_mask, options)
    if found.visit is None:
        found.held[layer] = attended
    else:
        found.visit(layer, attended)
    family = sys.modules[type(module).__module__]
    usual = family.ALL_ATTENTION_FUNCTIONS.get_interface(found.implementation, family.eager_attention_forward)
    return usual(module, query, key, value, attention_mask, **options)


def _bare(module: nn.Module) -> nn.Module:
    """What the eager functions read of a module: its settings and own weights (sinks), without its projections."""
    bare = copy.copy(module)
    bare._modules = {name: child for name, child in module._modules.items() if child and not list(child.parameters())}
    bare.__dict__.pop("captured", None)
    return bare


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)
