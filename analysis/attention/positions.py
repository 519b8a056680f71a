"""The positions over which a model's attention runs.

A position is a token. For a micro_step model that merges, it is a macro step: a segment that its base sees as one. BOS
comes first if there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from model.errors import MicroStepError
from model.hub.model_info import ModelInfo
from model.short_repr import ShortRepr
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


def check_indices(what: str, given: Sequence[int], count: int) -> tuple[int, ...]:
    """Some of `count` layers, heads or models, sorted, without repeats; raises MicroStepError if one does not exist."""
    wrong = [i for i in given if not 0 <= i < count]
    if wrong or not given:
        raise MicroStepError(f"{what} must be from 0 to {count - 1} here, got {wrong[0] if wrong else 'none'}")
    return tuple(sorted(set(given)))
