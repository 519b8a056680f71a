"""The micro attention of one text: what each head of the micro decoder attends to, segment by segment.

All arrays are frozen, and nothing here runs a model. analysis/attention/evenness computes statistics from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from analysis.attention.evenness.statistics import EvennessSums, segment_units
from model.errors import MicroStepError
from model.hub.model_info import MicroStepInfo, ModelInfo
from model.short_repr import ShortRepr
from model.text.encoding import EncodedText

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class MicroAttention(ShortRepr):
    """N tokens in segments, and the weights of the Q segments with two tokens and more."""

    facts: ModelInfo  # `micro_step` is never None
    encoded: EncodedText  # N tokens
    starts: NDArray[np.bool_]  # [N] whether a token starts a segment
    first: NDArray[np.int64]  # [Q] index of each segment's first token
    length: NDArray[np.int64]  # [Q] number of tokens of each segment
    weights: Floats
    """[Q, L, H, P, K + P]: query j (from 0) has read j + 1 tokens and predicts token j + 2 of the segment; slots are
    the K context states, then the segment's tokens. NaN if there is no query, or it does not see the slot."""
    merged: bool  # whether the base read merged segments, or token by token
    cut: str  # how the text was segmented, in words
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        q, k = len(self.first), len(self.micro.context_layers)
        shape = self.weights.shape
        if shape[0] != q or len(self.length) != q or shape[4] != k + shape[3] or len(self.starts) != len(self.encoded):
            raise ValueError(f"weights {shape} do not fit {q} segments and {k} context states")

    @property
    def micro(self) -> MicroStepInfo:
        assert self.facts.micro_step is not None
        return self.facts.micro_step

    @property
    def untrained(self) -> bool:
        return self.micro.untrained

    @property
    def states(self) -> int:
        """K, the number of context states."""
        return len(self.micro.context_layers)

    @property
    def layers(self) -> int:
        """L, the number of layers of the micro decoder."""
        return int(self.weights.shape[1])

    @property
    def heads(self) -> int:
        """H, the number of heads."""
        return int(self.weights.shape[2])

    @property
    def positions(self) -> int:
        """P, the number of queries of the longest segment."""
        return int(self.weights.shape[3])

    @cached_property
    def sums(self) -> EvennessSums:
        """Sums over the text; intervals are over its segments."""
        return EvennessSums.of(
            [(np.arange(len(self.first)), self.weights)], self.states, segment_units(len(self.first))
        )

    @cached_property
    def segment_of(self) -> NDArray[np.int64]:
        """[N] the one of the Q segments that holds each token; -1 if none does."""
        numbers = np.full(len(self.encoded), -1)
        for i, (first, length) in enumerate(zip(self.first.tolist(), self.length.tolist(), strict=True)):
            numbers[first : first + length] = i
        return numbers

    def holding(self, character: int) -> int | None:
        """The one of the Q segments that holds a character of `encoded.text`; None if none does."""
        inside = np.flatnonzero((self.encoded.start <= character) & (character < self.encoded.end))
        segment = int(self.segment_of[inside[0]]) if len(inside) else -1
        return None if segment < 0 else segment

    def check(self, segment: int | None, layer: int) -> None:
        """Raise MicroStepError unless this segment and this layer of the micro decoder exist, both from 0."""
        if segment is not None and not 0 <= segment < len(self.first):
            raise MicroStepError(f"there is no segment {segment}; {len(self.first)} have two tokens or more, from 0 on")
        if not 0 <= layer < self.layers:
            raise MicroStepError(f"there is no layer {layer}; the micro decoder has {self.layers}, from 0 on")

    def tokens(self, segment: int) -> list[str]:
        """The tokens of one of the Q segments, as shown."""
        display, first = self.encoded.display, int(self.first[segment])
        return display[first : first + int(self.length[segment])]


def context_names(layers: tuple[int, ...]) -> list[str]:
    """The K names of context states."""
    return [f"context: layer {layer}" for layer in layers]
