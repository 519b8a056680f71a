"""The text of an answer while it grows: whole characters only, and nothing from a stop string on."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import StoppingCriteria

from model.text.encoding import token_bytes


class TokenBytes:
    """The bytes of a tokenizer's tokens, looked up once each."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, bytes] = {}
        self.special = frozenset(int(i) for i in tokenizer.all_special_ids)

    def of(self, ids: Sequence[int]) -> list[bytes]:
        """Return the bytes of each token, which may be a part of a character."""
        if new := [i for i in ids if i not in self._known]:
            self._known.update(zip(new, token_bytes(self._tokenizer, np.array(new, dtype=np.int64)), strict=True))
        return [self._known[i] for i in ids]


class AnswerText:
    """Turns tokens into text piece by piece.

    A character that is split over tokens is held back until it is whole, and what may be the beginning of a stop string
    until it is certain that it is not. Special tokens have no text.

    Args:
        tokens: of the model's tokenizer.
        stops: strings that end the answer and are no part of it.
    """

    def __init__(self, tokens: TokenBytes, stops: Sequence[str] = ()) -> None:
        self._tokens, self._stops = tokens, stops
        self._characters = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""  # text that may be the beginning of a stop string
        self.stopped = False  # a stop string was found

    def add(self, ids: Sequence[int], last: bool = False) -> str:
        """Return the text that becomes certain with further tokens; with the `last` ones, all that is left."""
        if self.stopped:
            return ""
        pieces = self._tokens.of([i for i in ids if i not in self._tokens.special])
        text = self._held + self._characters.decode(b"".join(pieces), last)
        if found := [at for stop in self._stops if (at := text.find(stop)) >= 0]:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        held = 0 if last else max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of a text that is the beginning of a stop string."""
    return next(n for n in range(min(len(text), len(stop) - 1), -1, -1) if text.endswith(stop[:n]))


class StopStringCriterion(StoppingCriteria):  # type: ignore[misc]
    """Ends an answer at the token that completes a stop string; called once after each token of one answer."""

    def __init__(self, tokens: TokenBytes, stops: Sequence[str]) -> None:
        self._tokens, self._stops, self._read = tokens, stops, 0
        self._text = AnswerText(tokens, stops)

    def __call__(self, input_ids: Tensor, scores: object, **_: object) -> bool:
        """Read the last of the ids [1, N]."""
        if input_ids.shape[1] <= self._read:  # the answer begins again
            self._text = AnswerText(self._tokens, self._stops)
        self._read = input_ids.shape[1]
        self._text.add([int(input_ids[0, -1])])
        return self._text.stopped
