"""The memory that a model keeps of the tokens it has read, so that further tokens need no second pass over them.

Families keep it in different forms under different names: keys and values, recurrent states, or both. One trial per
model tells whether continuing from it gives the same states as reading the whole text. If not, everything is read
again.
"""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.forward import context_length, states
from model.causal_lm.kv_cache import growing_cache
from model.causal_lm.parts import body, text_config, token_model
from model.causal_lm.probe import FAULTS, close, once, parted, some_ids

_TRIED = 24  # number of tokens in the trial
_NAMES = ("past_key_values", "cache_params", "state", "mems")


def past_name(model: PreTrainedModel) -> str | None:
    """Return the argument under which a family's `forward` takes its memory, or None if it has no known one."""
    known = _arguments(token_model(model))
    return next((name for name in _NAMES if name in known), None)


def takes_positions(inner: nn.Module) -> bool:
    """True if a body accepts positions; other families count what they read."""
    known = _arguments(inner)
    return "position_ids" in known or any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values())


def _arguments(module: nn.Module) -> Mapping[str, inspect.Parameter]:
    """The arguments of a module's `forward`, found once a class: decoding asks for them at every token."""
    of_class = type(module).forward
    if getattr(module.forward, "__func__", None) is of_class:
        return _arguments_of(of_class)
    return inspect.signature(module.forward).parameters


@lru_cache(maxsize=256)
def _arguments_of(function: Callable[..., object]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


class Past:
    """The tokens that a model has read: one row of them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = token_model(model)
        self._memory = _working_memory(self.model)
        self._ids: Tensor | None = None  # [1, N], only if all tokens are read again

    @property
    def is_incremental(self) -> bool:
        """True if further tokens need no second pass over those before."""
        return self._memory is not None

    def read(self, ids: Tensor) -> Tensor:
        """Read further tokens [1, L] and return their states [1, L, d] (see `states`)."""
        if self._memory is not None:
            return self._memory.read(ids)
        self._ids = ids if self._ids is None else torch.cat([self._ids, ids], 1)
        return states(self.model, input_ids=self._ids, use_cache=False)[:, -ids.shape[1] :]


class _Memory:
    """The family's own memory; positions are passed to it, or it counts them itself."""

    def __init__(self, model: PreTrainedModel, with_positions: bool) -> None:
        self.model, self.with_positions, self.count = model, with_positions, 0
        self.name = past_name(model) or ""
        # under the other names, families make their memory themselves
        self.held: Any = growing_cache(text_config(model)) if self.name == "past_key_values" else None

    def read(self, ids: Tensor) -> Tensor:
        reader: Any = body(self.model) if parted(self.model) else self.model
        options = {self.name: self.held}
        if self.with_positions:
            position = torch.arange(self.count, self.count + ids.shape[1], device=ids.device)
            options["position_ids"] = position[None]
        out = reader(input_ids=ids, use_cache=True, **options)
        self.count += ids.shape[1]
        self.held = getattr(out, self.name, self.held)  # grown in place if it is not returned
        result: Tensor = out.last_hidden_state if parted(self.model) else out.logits
        return result


def _working_memory(model: PreTrainedModel) -> _Memory | None:
    with_positions = once(model, "past", lambda: _needs_positions(model))
    return None if with_positions is None else _Memory(model, with_positions)


def _needs_positions(model: PreTrainedModel) -> bool | None:
    """True if token-by-token reading equals one pass only with positions passed; None if it never does."""
    if past_name(model) is None:
        return None
    ids = some_ids(model, tokens=min(_TRIED, context_length(model) or _TRIED))
    whole = states(model, input_ids=ids, use_cache=False)
    for with_positions in (False, True):
        try:
            memory = _Memory(model, with_positions)
            parts = [memory.read(part) for part in (ids[:, :-3], ids[:, -3:-2], ids[:, -2:-1], ids[:, -1:])]
        except FAULTS:
            continue
        if close(torch.cat(parts, 1), whole):
            return with_positions
    return None
