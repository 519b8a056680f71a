"""Reads a text as positions of a model, and runs the pass that gives the queries and keys of its layers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from analysis.attention.positions import AttentionPositions, check_indices
from analysis.uncertainty.scoring import encode_for
from model.causal_lm.attention_capture import AttentionRows, StopForward, Visit, capture, private_copy
from model.causal_lm.attention_layers import check_attention, readable, whole_maps
from model.causal_lm.forward import body, check_readable, context_length, family_of, text_config, watched
from model.causal_lm.parts import option
from model.errors import ModelError, TextError
from model.hub.loading import LoadedModel
from model.progress import Progress
from model.text.document import TextInput
from model.text.encoding import EncodedText


def encode_whole(loaded: LoadedModel, text: TextInput) -> tuple[EncodedText, tuple[str, ...]]:
    """Tokenise a text and cut it to the model's context; returns the tokens, and notes for the reader.

    Raises:
        TooLarge: the text is far too long.
    """
    encoded = encode_for(loaded, text)
    notes, limit = _remarks(loaded, encoded, text.chat), context_length(loaded.model)
    room = len(encoded) if limit is None else limit - len(encoded.prefix)
    if len(encoded) > room:
        cut = f"the first {room:,} of {len(encoded):,} tokens were read: the model's context ends at {limit:,}"
        encoded, notes = encoded.head(room), (*notes, cut)
    if not len(encoded):
        raise TextError("the text has no token; type or choose another one")
    return encoded, notes


def _remarks(loaded: LoadedModel, encoded: EncodedText, chat: bool) -> tuple[str, ...]:
    notes = list(loaded.facts.approximations)
    if chat and not encoded.chat:
        notes.append("this model has no chat template: it read the raw text")
    notes += encoded.notes
    if not encoded.exact:
        notes.append("token positions are the tokenizer's own, which leave out white space")
    if loaded.facts.dtype != "float32":
        notes.append(f"queries and keys are the model's in {loaded.facts.dtype}; attention is computed in float32")
    return tuple(notes)


def merges(loaded: LoadedModel) -> bool:
    """Whether the model runs over merged segments."""
    micro = loaded.facts.micro_step
    return micro is not None and micro.decoding == "merged"


def read(
    loaded: LoadedModel, encoded: EncodedText, starts: NDArray[np.bool_], strategy: str, notes: tuple[str, ...] = ()
) -> AttentionPositions:
    """The positions of an encoded text.

    Args:
        loaded: the model.
        encoded: N tokens.
        starts: [N] where segments start; at most M tokens each for a model that merges. The first position always has
            one token, since no macro step comes before it.
        strategy: the strategy behind `starts`, in words.
        notes: notes for the reader.
    """
    starts = starts.copy()
    starts[0] = True
    if not merges(loaded):
        if loaded.facts.micro_step is not None:
            notes = (*notes, "this micro_step model decodes losslessly: its base reads single tokens")
        return AttentionPositions(loaded.facts, encoded, starts, strategy, False, notes)
    if not encoded.prefix:
        starts[1:2] = True
    notes = (*notes, "macro attention: of the base, over merged segments")
    return AttentionPositions(loaded.facts, encoded, starts, strategy, True, notes)


def attend(
    loaded: LoadedModel,
    reading: AttentionPositions,
    layers: Sequence[int],
    visit: Visit,
    progress: Progress | None = None,
) -> None:
    """Run the model over the positions; `visit` receives the queries and keys of each chosen layer in turn.

    The pass stops after the attention of the last chosen layer.

    Raises:
        MicroStepError: the model has no such layer.
    """
    chosen = check_layers(loaded.model, layers)
    check_attention(loaded.model, chosen)
    _check_positions(loaded, reading, chosen)
    encoded, left = reading.encoded, set(chosen)
    ids = np.concatenate([np.asarray(encoded.prefix, dtype=np.int64), encoded.ids])
    check_readable(loaded.model, [ids], len(ids))

    if readable(loaded.model).whole:
        _attend_whole(loaded, reading, ids, chosen, visit)
        return

    def seen(layer: int, attended: AttentionRows) -> None:
        visit(layer, attended)
        left.discard(layer)
        if not left:
            raise StopForward

    with torch.inference_mode(), watched(loaded.model, progress), _enough():
        private = private_copy(loaded.model)
        capture(private, chosen, seen)
        tokens = torch.as_tensor(ids, device=loaded.model.device)[None]
        if reading.merged:
            whole = copy.copy(loaded.model)
            whole._modules = {**loaded.model._modules, "base": private}
            starts = np.concatenate([np.ones(reading.lead, dtype=bool), reading.token_starts])
            given = torch.tensor([reading.lead + encoded.given], device=tokens.device)
            whole(tokens, segment_starts=torch.as_tensor(starts, device=tokens.device)[None], prompt=given)
        else:
            body(private)(input_ids=tokens, use_cache=False)
    if left:
        raise ModelError(f"the attention of layer {min(left)} cannot be read (it may have none); choose other layers")
    if progress is not None:
        progress(1.0)


def _attend_whole(
    loaded: LoadedModel, reading: AttentionPositions, ids: NDArray[np.int64], chosen: tuple[int, ...], visit: Visit
) -> None:
    """`attend` for a family that gives only whole maps."""
    if reading.merged:
        raise ModelError(f"{loaded.facts.family} gives no attention over segments: choose its base, which reads tokens")
    with torch.inference_mode():
        maps = whole_maps(loaded.model, torch.as_tensor(ids, device=loaded.model.device)[None])
        for layer in chosen:
            visit(layer, maps[layer])


def _check_positions(loaded: LoadedModel, reading: AttentionPositions, chosen: tuple[int, ...]) -> None:
    """Raise ModelError if a layer reads tokens although the positions are segments."""
    below = loaded.model.config.merge_layer if reading.merged else 0
    if chosen[0] < below:
        layers = size(loaded.model)[0]
        others = f"choose layers from {below} to {layers - 1}, or" if below < layers else "choose"
        raise ModelError(
            f"{loaded.facts.name} merges after {below} of its {layers} layers: layer {chosen[0]} reads tokens, and has"
            f" no map of segments; {others} its base, which reads tokens in all layers"
        )


@contextmanager
def _enough() -> Iterator[None]:
    try:
        yield
    except StopForward:
        return


def size(model: PreTrainedModel) -> tuple[int, int]:
    """The numbers of layers and heads of a model."""
    config = text_config(model)
    heads = option(config, "num_attention_heads")
    if not heads:
        raise ModelError(f"{family_of(model)} has no readable attention")
    return int(config.num_hidden_layers), int(heads)


def check_layers(model: PreTrainedModel, layers: Sequence[int]) -> tuple[int, ...]:
    """The chosen layers, sorted, without repeats; raises MicroStepError if one does not exist."""
    return check_indices("layer", layers, size(model)[0])


def check_heads(model: PreTrainedModel, heads: Sequence[int]) -> tuple[int, ...]:
    """The chosen heads, sorted, without repeats; raises MicroStepError if one does not exist."""
    return check_indices("head", heads, size(model)[1])
