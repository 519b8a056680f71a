"""Where the words or regions of a text are, and which of them each token belongs to.

A token belongs to the word that holds its characters; white space before a word belongs to that word, and white space
after the last word to the last. A token that holds characters of two words or more belongs to none of them alone: it
counts with the first, and is *shared* by all of them. This module knows nothing about scores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.errors import TextError

Spans = NDArray[np.int64]  # [W, 2] characters [start, end) of a text
SEPARATOR = "|"  # between the regions of a text that are given in one cell
_WORD = re.compile(r"\S+")


def word_spans(text: str) -> Spans:
    """The words of a text: what stands between white space, as `str.split` sees it."""
    return np.array([word.span() for word in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)


def split_regions(cell: object) -> list[str]:
    """The regions that a cell holds, without white space at their ends: a list, or a text with SEPARATOR between them.

    Raises:
        TextError: it is neither, or a region is empty.
    """
    parts = cell.split(SEPARATOR) if isinstance(cell, str) else cell
    if not isinstance(parts, list) or not all(isinstance(part, str) and part.strip() for part in parts):
        raise TextError(f"regions are texts with {SEPARATOR} between them, or a list of texts, none of them empty")
    return [part.strip() for part in parts]


def region_spans(text: str, regions: Sequence[str]) -> Spans:
    """The regions of a text, one after the other, with nothing but white space between.

    Raises:
        TextError: the text has other characters than the regions.
    """
    spans, at = [], 0
    for region in regions:
        at += len(text[at:]) - len(text[at:].lstrip())
        if not text.startswith(region, at):
            found = text[at : at + len(region)]
            raise TextError(f"the text has {found!r} where the region {region!r} should be")
        spans.append((at, at + len(region)))
        at += len(region)
    if rest := text[at:].strip():
        raise TextError(f"the text goes on with {rest[:40]!r} after its last region")
    return np.array(spans, dtype=np.int64).reshape(-1, 2)


def token_words(
    text: str, spans: Spans, start: NDArray[np.integer], end: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[N] the first and the last word of which each token holds characters; -1 for a token of the chat template.

    Args:
        text: the text.
        spans: its words, which hold all of its characters but white space.
        start: [N] characters [start, end) of each token; -1 in the chat template.
        end: [N].
    """
    n, none = len(text), np.full(len(start), -1, dtype=np.int64)
    solid = np.flatnonzero(~np.fromiter(map(str.isspace, text), dtype=bool, count=n))
    if not len(solid):
        return none, none
    word_of = np.searchsorted(spans[:, 0], solid, side="right") - 1  # [solid characters] the word of each
    first = np.searchsorted(solid, start)  # the first solid character from the token's start on
    last = np.searchsorted(solid, end) - 1
    white = last < first  # it goes with what follows, or with the last word
    first = np.minimum(first, len(solid) - 1)
    last = np.where(white, first, last)
    template = np.asarray(start) < 0
    return np.where(template, -1, word_of[first]), np.where(template, -1, word_of[np.maximum(last, 0)])
