"""Where the tokens of a written answer stand in its text.

A token is kept as what it spells alone: one that is split inside a character shows a mark, and some tokenizers leave
out the space before a word. Tokens are found again in the text; where they are the text, nothing is searched.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evals.samples import WrittenAnswer

NEAR = 8  # characters that may be skipped: a split character, a space
Spans = tuple[str, NDArray[np.int32], NDArray[np.int32]]


def locate_tokens(piece: WrittenAnswer) -> Spans:
    """The text with whatever was written behind it (a stop string, an end token), and of each token its characters.

    Tokens that make up one character share it.
    """
    joined = "".join(piece.tokens)
    if joined.startswith(piece.text):
        ends = np.cumsum([len(token) for token in piece.tokens], dtype=np.int32)
        return joined, np.concatenate([[0], ends[:-1]]).astype(np.int32)[: len(ends)], ends
    return _found(piece)


def _found(piece: WrittenAnswer) -> Spans:
    text, at, spans, waiting = piece.text, 0, list[tuple[int, int]](), 0
    for token in piece.tokens:
        here = -1 if not token or "\ufffd" in token else text.find(token, at, at + len(token) + NEAR)
        if here < 0:
            waiting += 1
            continue
        spans += [(at, here)] * waiting
        spans.append((here if waiting else at, here + len(token)))
        at, waiting = here + len(token), 0
    if waiting:
        if at == len(text):
            text += "".join(piece.tokens[len(piece.tokens) - waiting :])
        spans += [(at, len(text))] * waiting
    start, end = np.array(spans, dtype=np.int32).reshape(-1, 2).T
    return text, start, end
