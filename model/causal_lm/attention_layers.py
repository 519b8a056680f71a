"""Which layers of a model have attention that can be read, found out by a pass over a few tokens; and reading it.

Most families hand queries and keys to one of transformers' attention functions, where they are taken (see
`segmentation_capture`). Others compute attention in code of their own: these are asked for their maps, all layers' at
once. Recurrent layers and convolutions have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.attention_capture import AttentionRows, capture, private_copy
from model.causal_lm.device_memory import available_memory
from model.causal_lm.finite import check_states
from model.causal_lm.parts import body, family_of, option, text_config
from model.causal_lm.probe import FAULTS, once, some_ids
from model.errors import ModelError, NumericalError, TooLarge

_SPARE = 0.9  # share of the free memory that a run may plan with


@dataclass(frozen=True)
class WholeMap:
    """The attention of one layer over N positions, as its family itself gives it."""

    weights: Tensor  # [H, N, N]

    @property
    def heads(self) -> int:
        """H."""
        return int(self.weights.shape[0])

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.weights.device

    def visible(self, begin: int, end: int) -> Tensor:
        """[end - begin, end] which keys the queries begin .. end - 1 look at, in any head."""
        return (self.weights[:, begin:end, :end] > 0).any(0)

    def rows(self, begin: int, end: int, heads: Sequence[int] | None) -> Tensor:
        """[h, end - begin, end] float32 attention of the queries begin .. end - 1."""
        chosen = self.weights if heads is None else self.weights[list(heads)]
        return chosen[:, begin:end, :end].float()


@dataclass(frozen=True)
class ReadableLayers:
    """What was found."""

    layers: tuple[int, ...]
    whole: bool  # the family gives whole maps only, of all layers at once


def readable(model: PreTrainedModel) -> ReadableLayers:
    """Which layers have attention that can be read, and how."""
    return once(model, "attention", lambda: _readable(model))


def _readable(model: PreTrainedModel) -> ReadableLayers:
    found: list[int] = []
    ids = some_ids(model)

    def seen(layer: int, attended: AttentionRows) -> None:
        rows = attended.rows(0, ids.shape[1], None)
        if bool(rows.isfinite().all()):
            found.append(layer)

    try:
        private = private_copy(model)
        capture(private, range(int(text_config(model).num_hidden_layers)), seen)
        body(private)(input_ids=ids, use_cache=False)
    except NumericalError:  # there is attention: what is wrong with its numbers is said of the text that is read
        return ReadableLayers(tuple(range(int(text_config(model).num_hidden_layers))), whole=False)
    except (ModelError, *FAULTS):
        found = []
    if found:
        return ReadableLayers(tuple(dict.fromkeys(found)), whole=False)
    try:
        maps = whole_maps(model, ids)
    except (ModelError, *FAULTS):
        return ReadableLayers((), whole=False)
    return ReadableLayers(tuple(range(len(maps))), whole=True)


def whole_maps(model: PreTrainedModel, ids: Tensor) -> list[WholeMap]:
    """The maps of all layers over ids [1, N], by the family's own eager attention.

    Raises:
        ModelError: it gives none, or not one for each layer.
        TooLarge: they do not fit the free memory.
    """
    config, n = text_config(model), ids.shape[1]
    layers, heads = int(config.num_hidden_layers), int(option(config, "num_attention_heads") or 1)
    needed, free = 4 * layers * heads * n * n, available_memory(model.device)
    if needed > _SPARE * free:
        raise TooLarge(
            f"{family_of(model)} gives the attention of all layers at once, {needed / 1e9:.1f} GB over {n:,} tokens,"
            f" {free / 1e9:.1f} GB are free; shorten the text"
        )
    private = private_copy(model)
    for part in (private, *private.modules()):
        if hasattr(part, "config"):
            part.config._attn_implementation_internal = "eager"
    told = body(private)(input_ids=ids, use_cache=False, output_attentions=True).attentions
    maps = [WholeMap(each[0]) for each in told or () if each is not None]
    if len(maps) != layers or any(each.weights.shape[-2:] != (n, n) for each in maps):
        raise ModelError(f"{family_of(model)} gives no attention of its layers")
    for layer, each in enumerate(maps):
        check_states(model, each.weights.transpose(0, 1), f"attention in layer {layer}", "positions")
    return maps


def with_attention(model: PreTrainedModel) -> tuple[int, ...]:
    """All layers that have attention that can be read.

    Raises:
        ModelError: none has, naming the family.
    """
    there = readable(model).layers
    if not there:
        raise ModelError(f"{family_of(model)} has no readable attention")
    return there


def check_attention(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Raise ModelError, naming the family and the layers that can be chosen, if one of these has no such attention."""
    there = with_attention(model)
    lacking = [layer for layer in layers if layer not in there]
    if lacking:
        raise ModelError(
            f"layer {lacking[0]} of {family_of(model)} has no readable attention (it is recurrent, or a special kind of"
            f" layer); choose from {', '.join(map(str, there))}"
        )
