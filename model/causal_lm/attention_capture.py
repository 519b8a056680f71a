"""Read the attention of chosen layers and heads, a block of queries at a time, in one pass of any transformers family.

During the pass, the attention functions of the chosen layers keep the queries and keys that they receive, or hand them
to a visitor at once so that none are kept. The rotary position is applied by then; scaling, soft cap and mask come
along. The family's own eager function then computes the rows block by block, so nothing here depends on a family, and
memory is O(heads x block x N).

The pass runs on copies of the modules that share the weights. The model itself is not touched, other threads may use it
meanwhile, and nothing of the run stays behind.
"""

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
from model.causal_lm.parts import layers_of

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
    """The inputs of one layer's attention, for one text of N positions."""

    module: nn.Module
    query: Tensor  # [1, H, N, d]
    key: Tensor  # [1, G, N, d] with H a multiple of G
    mask: Tensor | None  # [1, 1, N, N] bool or additive; None: causal
    options: dict[str, Any]  # scaling, soft cap, sliding window, ...

    def __post_init__(self) -> None:
        if self.query.shape[2:] != self.key.shape[2:] or self.query.shape[1] % self.key.shape[1]:
            raise ValueError(
                f"query must be [1, H, N, d] and key [1, G, N, d], got {list(self.query.shape)} and"
                f" {list(self.key.shape)}"
            )

    @property
    def heads(self) -> int:
        return int(self.query.shape[1])

    @property
    def device(self) -> torch.device:
        return self.query.device

    def visible(self, begin: int, end: int) -> Tensor:
        """Return [end - begin, end] bool: the keys that the queries begin .. end - 1 may see."""
        if self.mask is not None:
            part = self.mask[0, 0, begin:end, :end]
            return part if part.dtype == torch.bool else part > torch.finfo(part.dtype).min / 2
        position = torch.arange(end, device=self.query.device)
        back = position[begin:, None] - position
        seen = back >= 0
        window = self.options.get("sliding_window")
        return seen & (back < window) if window else seen

    def rows(self, begin: int, end: int, heads: Sequence[int] | None) -> Tensor:
        """Return [h, end - begin, end] float32 attention of the queries begin .. end - 1; later keys are left out."""
        module, query, key = self.module, self.query[:, :, begin:end], self.key[:, :, :end]
        whole = heads is None or hasattr(module, "sinks")  # sinks belong to heads, so all heads are computed together
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
        attention: Tensor = rows[0]
        return attention if heads is None or not whole else attention[list(heads)]


class AttentionRows(Protocol):
    """Attention of one layer over N positions, a block of queries at a time."""

    @property
    def heads(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def visible(self, begin: int, end: int) -> Tensor:
        """Return [end - begin, end] bool: the keys that the queries begin .. end - 1 may see."""
        ...

    def rows(self, begin: int, end: int, heads: Sequence[int] | None) -> Tensor:
        """Return [h, end - begin, end] float32 attention of the queries begin .. end - 1; later keys are left out."""
        ...


Visit = Callable[[int, AttentionRows], None]  # called with a layer and its inputs, before the layer runs


class StopForward(Exception):
    """Raised by a visitor that needs no more layers. The code that started the pass catches it."""


@dataclass
class Capture:
    """The chosen layers of one run of a model."""

    model: PreTrainedModel
    implementation: str
    held: dict[int, CapturedAttention] = field(default_factory=dict)  # stays empty if a visitor takes them
    visit: Visit | None = None


def private_copy(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model with modules of its own that share the weights, so hooks and settings put on it stay on it."""
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
    """Make these layers of a `private_copy` keep the inputs of their attention in the next pass.

    Args:
        private: the copy.
        layers: indices of the layers, from 0.
        visit: receives each layer's inputs in turn instead of keeping them; may raise `StopForward` to leave the pass.

    The pass raises NumericalError if queries or keys of these layers are not finite.
    """
    captured = Capture(private, str(private.config._attn_implementation or "eager"), visit=visit)
    all_layers = layers_of(body(private))
    for i in layers:
        for part in all_layers[i].modules():
            module = cast("Any", part)
            if hasattr(module, "config"):
                module.config = copy.copy(module.config)
                module.config._attn_implementation_internal = _NAME
                module.captured = captured, i
    return captured


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> Any:
    """Keep the arguments, then compute attention as the model would have."""
    captured, layer = cast("tuple[Capture, int]", module.captured)
    for states in (query, key):  # [1, H, N, d]
        check_states(captured.model, states[0].transpose(0, 1), f"queries or keys in layer {layer}", "positions")
    inputs = CapturedAttention(_bare(module), query, key, attention_mask, options)
    if captured.visit is None:
        captured.held[layer] = inputs
    else:
        captured.visit(layer, inputs)
    family = sys.modules[type(module).__module__]
    usual = family.ALL_ATTENTION_FUNCTIONS.get_interface(captured.implementation, family.eager_attention_forward)
    return usual(module, query, key, value, attention_mask, **options)


def _bare(module: nn.Module) -> nn.Module:
    """Return a copy of a module with the settings and weights (sinks) that eager functions read, no projections."""
    bare = copy.copy(module)
    bare._modules = {name: child for name, child in module._modules.items() if child and not list(child.parameters())}
    bare.__dict__.pop("captured", None)
    return bare


ALL_ATTENTION_FUNCTIONS.register(_NAME, _attend)
