"""What a model keeps of the tokens that it has read, so that the next ones need no second look at them.

Families keep it in different forms, under different names: keys and values, states of recurrent layers, both. Whether
going on from it gives what reading the whole text gives is tried out once a model; where it does not, all is read
again.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.forward import context_length, states
from model.causal_lm.kv_cache import growing_cache
from model.causal_lm.parts import body, text_config, token_model
from model.causal_lm.probe import FAULTS, close, once, parted, some_ids

_TRIED = 24  # tokens
_NAMES = ("past_key_values", "cache_params", "state", "mems")


def past_name(model: PreTrainedModel) -> str | None:
    """Under which name a family's `forward` takes what it kept; None: under none that is known."""
    known = inspect.signature(token_model(model).forward).parameters
    return next((name for name in _NAMES if name in known), None)


def takes_positions(inner: nn.Module) -> bool:
    """Whether a body can be told positions; those of other families follow from the order of what they read."""
    known = inspect.signature(inner.forward).parameters
    return "position_ids" in known or any(each.kind is each.VAR_KEYWORD for each in known.values())


class Past:
    """The tokens that one model has read, one row of them."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = token_model(model)
        self._kept = _kept(self.model)
        self._ids: Tensor | None = None  # [1, N], where they are read again

    @property
    def goes_on(self) -> bool:
        """Whether further tokens need no second look at those before."""
        return self._kept is not None

    def read(self, ids: Tensor) -> Tensor:
        """[1, L, d] the states (see `states`) of further tokens [1, L]."""
        if self._kept is not None:
            return self._kept.read(ids)
        self._ids = ids if self._ids is None else torch.cat([self._ids, ids], 1)
        return states(self.model, input_ids=self._ids, use_cache=False)[:, -ids.shape[1] :]


class _Kept:
    """What the family itself keeps; it is told positions, or counts them itself."""

    def __init__(self, model: PreTrainedModel, told: bool) -> None:
        self.model, self.told, self.count = model, told, 0
        self.name = past_name(model) or ""
        # of the other names, the families make what they need themselves
        self.held: Any = growing_cache(text_config(model)) if self.name == "past_key_values" else None

    def read(self, ids: Tensor) -> Tensor:
        reader: Any = body(self.model) if parted(self.model) else self.model
        options = {self.name: self.held}
        if self.told:
            position = torch.arange(self.count, self.count + ids.shape[1], device=ids.device)
            options["position_ids"] = position[None]
        out = reader(input_ids=ids, use_cache=True, **options)
        self.count += ids.shape[1]
        self.held = getattr(out, self.name, self.held)  # grown in place, where it is not handed back
        found: Tensor = out.last_hidden_state if parted(self.model) else out.logits
        return found


def _kept(model: PreTrainedModel) -> _Kept | None:
    told = once(model, "past", lambda: _way(model))
    return None if told is None else _Kept(model, told)


def _way(model: PreTrainedModel) -> bool | None:
    """Whether positions must be told for token by token to give the states of one pass over all; None: nothing does."""
    if past_name(model) is None:
        return None
    ids = some_ids(model, tokens=min(_TRIED, context_length(model) or _TRIED))
    whole = states(model, input_ids=ids, use_cache=False)
    for told in (False, True):
        try:
            kept = _Kept(model, told)
            parts = [kept.read(part) for part in (ids[:, :-3], ids[:, -3:-2], ids[:, -2:-1], ids[:, -1:])]
        except FAULTS:
            continue
        if close(torch.cat(parts, 1), whole):
            return told
    return None
