"""The states between a model's layers, and the way from such a state to logits: the final norm and the head.

State l is what the model holds of a position after l layers: state 0 are the embeddings as the first layer reads them,
with a family's scaling and positions. The last entry of transformers' `hidden_states` is the body's output *after* the
final norm, so it must not be normed again; here the state after the last layer is never taken from there.

The way to logits runs the family's own body with every layer left out, and then its own head. So nothing here depends
on where a family has its norm, its projection, its scaling or its soft cap. A trial on a few tokens shows whether this
works for a model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.attention_capture import private_copy
from model.causal_lm.forward import body, family_of, hidden_states, logits_of, text_config, token_model
from model.causal_lm.layer_split import run_upper
from model.causal_lm.parts import layers_of
from model.causal_lm.probe import FAULTS, close, once, parted, some_ids
from model.errors import ModelError

MLP_POSITIONS = 512  # that a layer's MLP reads at a time: its inner states are several times as wide as what is kept


@dataclass(frozen=True)
class LayerStates:
    """One text's states that predict its N tokens."""

    inner: Tensor  # [L, N, d] after 0 .. L - 1 layers, before the final norm
    last: Tensor  # [N, d'] the body's output, which `logits_of` reads


def layer_count(model: PreTrainedModel) -> int:
    """Return L, the number of layers of the model that reads tokens."""
    return int(text_config(model).num_hidden_layers)


def check_layers_readable(model: PreTrainedModel) -> None:
    """Raise ModelError if no layer's states can be given to the final norm and the head."""
    if isinstance(found := _way(model), str):
        raise ModelError(f"{family_of(model)} {found}, so its layers cannot be read by the logit lens")


def read_layers(model: PreTrainedModel, row: Any, prefix: Sequence[int] = ()) -> LayerStates:
    """Read a text [N] once, and keep the states before each layer. They take L x N x d numbers of the model's dtype.

    Without a prefix, no state predicts the text's first token, so N is one less.

    Raises:
        ModelError: the family cannot be read layer by layer.
        TooLarge: the text is longer than the model's context.
    """
    check_layers_readable(model)
    private, layers, before = private_copy(model), layer_count(model), max(0, len(prefix) - 1)
    held: list[Tensor] = []  # one array of all layers, so that the memory is taken once

    def keep(layer: int, states: Tensor) -> None:
        rows = states[0, before:]
        if not held:
            held.append(rows.new_empty(layers, *rows.shape))
        held[0][layer].copy_(rows)  # a copy: some layers write into what they read

    _before_each_layer(private, keep)
    if isinstance(way := _way(model), _Way) and way.chunks:
        _chunk_mlps(private, MLP_POSITIONS)
    (last,), _ = hidden_states(private, [row], prefix)
    if not held:
        held.append(last.new_empty(layers, 0, last.shape[-1]))
    return LayerStates(held[0], last)


def lens_logits(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Return float32 logits [C, V] of states [C, d] after any number of layers: through the final norm and the head."""
    way = _way(model)
    assert isinstance(way, _Way)  # see check_layers_readable
    return logits_of(model, _normed(token_model(model), states, way.tuples))


@dataclass(frozen=True)
class _Way:
    """What a trial has found out about a model."""

    tuples: bool  # whether its layers return tuples
    chunks: bool  # whether its MLPs read each position by itself


def _way(model: PreTrainedModel) -> _Way | str:
    """Return how a model's layers are read, or why they cannot be."""
    return once(model, "layer states", lambda: _try(token_model(model)))


def _normed(model: PreTrainedModel, states: Tensor, tuples: bool) -> Tensor:
    """Return the body's output [C, d'] of states [C, d] that the last layer would have given."""
    inner, width = body(model), model.get_input_embeddings().weight.shape[-1]
    # No layer reads these. Their width is not that of the states where a family projects its embeddings.
    unread = states.new_zeros(1, len(states), width)
    out = run_upper(inner, len(layers_of(inner)), states[None], tuples, inputs_embeds=unread, use_cache=False)
    normed: Tensor = out.last_hidden_state[0]
    return normed


def _before_each_layer(private: PreTrainedModel, keep: Any) -> None:
    """Have the layers of a private copy hand over what they read."""
    for i, layer in enumerate(layers_of(body(private))):

        def hook(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any], i: int = i) -> None:
            keep(i, args[0] if args else options["hidden_states"])

        layer.register_forward_pre_hook(hook, with_kwargs=True)


def _chunk_mlps(private: PreTrainedModel, positions: int) -> None:
    """Have the MLPs of a private copy read a few positions at a time, which takes a fraction of the memory."""

    def in_chunks(mlp: nn.Module) -> None:
        whole = mlp.forward
        mlp.forward = lambda states: torch.cat([whole(part) for part in states.split(positions, 1)], 1)

    for layer in layers_of(body(private)):
        if isinstance(mlp := getattr(layer, "mlp", None), nn.Module):
            in_chunks(mlp)


def _mlps_can_be_chunked(model: PreTrainedModel, ids: Tensor, expected: Tensor) -> bool:
    private = private_copy(model)
    _chunk_mlps(private, 2)
    try:
        return close(body(private)(input_ids=ids, use_cache=False).last_hidden_state, expected)
    except FAULTS:
        return False


def _try(model: PreTrainedModel) -> _Way | str:
    if not parted(model):
        return "cannot be split into a body and a head"
    ids, seen, outputs = some_ids(model), [], []
    try:
        private = private_copy(model)
        layers = layers_of(body(private))
        _before_each_layer(private, lambda layer, states: seen.append((layer, tuple(states.shape))))
        layers[-1].register_forward_hook(lambda _, __, output: outputs.append(output))
        last = body(private)(input_ids=ids, use_cache=False).last_hidden_state
        (output,) = outputs
        tuples = isinstance(output, tuple)
        states = output[0] if tuples else output
        if seen != [(layer, tuple(states.shape)) for layer in range(layer_count(model))]:
            return "does not run its layers one after the other over one state of each token"
        part = slice(2, None)  # without what stands before, a position must come to the same
        if not close(_normed(model, states[0, part], tuples), last[0, part]):
            return "does more after its last layer than a norm of each state"
    except FAULTS:
        return "cannot be run with its layers left out"
    return _Way(tuples, _mlps_can_be_chunked(model, ids, last))
