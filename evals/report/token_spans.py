"""Locate the tokens of a generated answer in its text.

Tokens are stored as decoded one by one: a token that is split inside a character shows a mark, and some tokenizers drop
the space before a word. The tokens are searched in the text, unless joining them gives the text.
"""

import numpy as np
from numpy.typing import NDArray

from evals.samples import WrittenAnswer

MAX_SKIPPED = 8  # characters: a split character, a space
Spans = tuple[str, NDArray[np.int32], NDArray[np.int32]]


def locate_tokens(answer: WrittenAnswer) -> Spans:
    """Return the text, including a stop string or end token after it, and each token's characters.

    Tokens that together form one character share it.
    """
    joined = "".join(answer.tokens)
    if joined.startswith(answer.text):
        ends = np.cumsum([len(token) for token in answer.tokens], dtype=np.int32)
        return joined, np.concatenate([[0], ends[:-1]]).astype(np.int32)[: len(ends)], ends
    return _searched(answer)


def _searched(answer: WrittenAnswer) -> Spans:
    text, position, spans, waiting = answer.text, 0, list[tuple[int, int]](), 0
    for token in answer.tokens:
        begin = (
            -1 if not token or "\ufffd" in token else text.find(token, position, position + len(token) + MAX_SKIPPED)
        )
        if begin < 0:
            waiting += 1
            continue
        spans += [(position, begin)] * waiting
        spans.append((begin if waiting else position, begin + len(token)))
        position, waiting = begin + len(token), 0
    if waiting:
        if position == len(text):
            text += "".join(answer.tokens[len(answer.tokens) - waiting :])
        spans += [(position, len(text))] * waiting
    start, end = np.array(spans, dtype=np.int32).reshape(-1, 2).T
    return text, start, end
