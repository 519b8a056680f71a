"""Find out by a pass over a few tokens which layers of a model have readable attention, and read it.

Most families hand queries and keys to one of transformers' attention functions, where `attention_capture` takes them.
Others compute attention in code of their own; these are asked for the maps of all layers at once. Recurrent layers and
convolutions have none.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.attention_capture import AttentionRows, capture, private_copy
from model.causal_lm.device_memory import available_memory, spoken_bytes
from model.causal_lm.finite import check_states
from model.causal_lm.parts import body, family_of, option, text_config
from model.causal_lm.probe import FAULTS, once, some_ids
from model.errors import ModelError, NumericalError, TooLarge

_SPARE = 0.9  # share of the free memory that a run may use


@dataclass(frozen=True)
class WholeMap:
    """The attention of one layer over N positions, as the family returns it."""

    weights: Tensor  # [H, N, N]

    @property
    def heads(self) -> int:
        return int(self.weights.shape[0])

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def visible(self, begin: int, end: int) -> Tensor:
        """Return [end - begin, end] bool: the keys that the queries begin .. end - 1 attend to in any head."""
        return (self.weights[:, begin:end, :end] > 0).any(0)

    def rows(self, begin: int, end: int, heads: Sequence[int] | None) -> Tensor:
        """Return [h, end - begin, end] float32 attention of the queries begin .. end - 1."""
        chosen = self.weights if heads is None else self.weights[list(heads)]
        return chosen[:, begin:end, :end].float()


@dataclass(frozen=True)
class ReadableLayers:
    """The layers of a model whose attention can be read."""

    layers: tuple[int, ...]
    whole: bool  # True if the family returns only whole maps, of all layers at once


def readable(model: PreTrainedModel) -> ReadableLayers:
    """Return the layers whose attention can be read, and how."""
    return once(model, "attention", lambda: _readable(model))


def _readable(model: PreTrainedModel) -> ReadableLayers:
    layers: list[int] = []
    ids = some_ids(model)

    def visit(layer: int, attention: AttentionRows) -> None:
        rows = attention.rows(0, ids.shape[1], None)
        if bool(rows.isfinite().all()):
            layers.append(layer)

    try:
        private = private_copy(model)
        capture(private, range(int(text_config(model).num_hidden_layers)), visit)
        body(private)(input_ids=ids, use_cache=False)
    except NumericalError:  # there is attention; the text that is read next gets the message about its numbers
        return ReadableLayers(tuple(range(int(text_config(model).num_hidden_layers))), whole=False)
    except (ModelError, *FAULTS):
        layers = []
    if layers:
        return ReadableLayers(tuple(dict.fromkeys(layers)), whole=False)
    try:
        maps = whole_maps(model, ids)
    except (ModelError, *FAULTS):
        return ReadableLayers((), whole=False)
    return ReadableLayers(tuple(range(len(maps))), whole=True)


def whole_maps(model: PreTrainedModel, ids: Tensor) -> list[WholeMap]:
    """Return the attention maps of all layers over ids [1, N], computed by the family's own eager attention."""
    config, n = text_config(model), ids.shape[1]
    layers, heads = int(config.num_hidden_layers), int(option(config, "num_attention_heads") or 1)
    needed, free = 4 * layers * heads * n * n, available_memory(model.device)
    if needed > _SPARE * free:
        raise TooLarge(
            f"{family_of(model)} returns the attention of all layers at once: {spoken_bytes(needed)}"
            f" for {n:,} tokens, but only {spoken_bytes(free)} are free; shorten the text"
        )
    private = private_copy(model)
    for part in (private, *private.modules()):
        if hasattr(part, "config"):
            part.config._attn_implementation_internal = "eager"
    attentions = body(private)(input_ids=ids, use_cache=False, output_attentions=True).attentions
    maps = [WholeMap(weights[0]) for weights in attentions or () if weights is not None]
    if len(maps) != layers or any(layer_map.weights.shape[-2:] != (n, n) for layer_map in maps):
        raise ModelError(f"{family_of(model)} returns no attention of its layers")
    for layer, layer_map in enumerate(maps):
        check_states(model, layer_map.weights.transpose(0, 1), f"attention in layer {layer}", "positions")
    return maps


def with_attention(model: PreTrainedModel) -> tuple[int, ...]:
    """Return all layers whose attention can be read."""
    layers = readable(model).layers
    if not layers:
        raise ModelError(f"{family_of(model)} has no readable attention")
    return layers


def check_attention(model: PreTrainedModel, layers: Sequence[int]) -> None:
    """Raise ModelError if one of these layers has no readable attention; the message names the layers that have."""
    available = with_attention(model)
    missing = [layer for layer in layers if layer not in available]
    if missing:
        raise ModelError(
            f"layer {missing[0]} of {family_of(model)} has no readable attention (it is recurrent, or a special kind of"
            f" layer); choose from {', '.join(map(str, available))}"
        )
