"""The positions over which a model's attention runs, and the pass that reads it.

A position is a token. For a micro_step model that merges, it is a macro step: a segment that its base sees as one. BOS
comes first if there is one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from analysis.uncertainty.scoring import encode_for
from model.causal_lm.attention_capture import AttentionRows, StopForward, Visit, capture, private_copy
from model.causal_lm.attention_layers import check_attention, readable, whole_maps
from model.causal_lm.forward import body, check_readable, context_length, family_of, text_config, watched
from model.causal_lm.parts import option
from model.errors import MicroStepError, ModelError, TextError
from model.hub.loading import LoadedModel
from model.hub.model_info import ModelInfo
from model.progress import Progress
from model.short_repr import ShortRepr
from model.text.document import TextInput
from model.text.encoding import EncodedText

BOS = "BOS"  # shown for it, since it has no characters


@dataclass(frozen=True, eq=False, repr=False)
class AttentionPositions(ShortRepr):
    """One text as P positions of one model, from N tokens in segments. Compared by identity."""

    facts: ModelInfo
    encoded: EncodedText  # N tokens
    token_starts: NDArray[np.bool_]  # [N] the token starts a segment
    strategy: str  # the strategy that segmented the text, in words
    merged: bool  # each segment is one position: a macro step
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.token_starts.shape != (len(self.encoded),):
            raise ValueError(f"token_starts must be [{len(self.encoded)}], got {self.token_starts.shape}")

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lead(self) -> int:
        """The number of positions that the tokenizer adds before the text, such as BOS; they are no tokens."""
        return len(self.encoded.prefix)

    @cached_property
    def begin(self) -> NDArray[np.int64]:
        """[P] the first token of each position; -1 for BOS."""
        first = np.flatnonzero(self.token_starts) if self.merged else np.arange(len(self.encoded))
        return np.concatenate([np.full(self.lead, -1), first])

    @cached_property
    def end(self) -> NDArray[np.int64]:
        """[P] the token after the last one of each position; 0 for BOS."""
        first = self.begin[self.lead :]
        return np.concatenate([np.zeros(self.lead, dtype=np.int64), first[1:], [len(self.encoded)]])

    @cached_property
    def starts(self) -> NDArray[np.bool_]:
        """[P] whether the position starts a segment, as BOS and every macro step do."""
        own = np.ones(int(self.token_starts.sum()), dtype=bool) if self.merged else self.token_starts
        return np.concatenate([np.ones(self.lead, dtype=bool), own])

    @cached_property
    def segment(self) -> NDArray[np.int64]:
        """[P] the segment of each position, from 0."""
        return np.cumsum(self.starts, dtype=np.int64) - 1

    @cached_property
    def words(self) -> tuple[str, ...]:
        """[P] the text of each position."""
        shown = self.encoded.display
        spans = zip(self.begin.tolist(), self.end.tolist(), strict=True)
        return tuple(BOS if a < 0 else self._joined(a, b, shown) for a, b in spans)

    def _joined(self, a: int, b: int, shown: list[str]) -> str:
        """Tokens [a, b) as text; a character that is split over tokens once."""
        if b - a == 1:
            return shown[a]
        return self.encoded.text[int(self.encoded.start[a]) : int(self.encoded.end[b - 1])]

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """[P] a number for each position; positions with the same tokens have the same number."""
        ids = self.encoded.ids
        whole = [(-1,) if a < 0 else tuple(ids[a:b].tolist()) for a, b in zip(self.begin, self.end, strict=True)]
        known: dict[tuple[int, ...], int] = {}
        return np.array([known.setdefault(each, len(known)) for each in whole], dtype=np.int64)

    @cached_property
    def source(self) -> NDArray[np.int32]:
        """[P, 2] the document's characters [start, end) of each position; -1 for template and BOS."""
        spans = np.full((len(self), 2), -1, dtype=np.int32)
        start, end = self.encoded.source_start, self.encoded.source_end
        for p, (a, b) in enumerate(zip(self.begin.tolist(), self.end.tolist(), strict=True)):
            inside = [i for i in range(a, b) if i >= 0 and start[i] >= 0]
            if inside:
                spans[p] = start[inside[0]], end[inside[-1]]
        return spans

    def at(self, character: int | None) -> int | None:
        """The position that holds a character of the document; None if none does."""
        if character is None:
            return None
        holding = np.flatnonzero((self.source[:, 0] <= character) & (character < self.source[:, 1]))
        return int(holding[0]) if len(holding) else None

    @property
    def unit(self) -> str:
        return "macro step" if self.merged else "token"


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
            whole(tokens, segment_starts=torch.as_tensor(starts, device=tokens.device)[None])
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


def check_indices(what: str, given: Sequence[int], count: int) -> tuple[int, ...]:
    """Some of `count` layers, heads or models, sorted, without repeats; raises MicroStepError if one does not exist."""
    wrong = [i for i in given if not 0 <= i < count]
    if wrong or not given:
        raise MicroStepError(f"{what} must be from 0 to {count - 1} here, got {wrong[0] if wrong else 'none'}")
    return tuple(sorted(set(given)))
