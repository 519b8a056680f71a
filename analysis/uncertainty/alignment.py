"""Aligns two tokenizations of a text in cells: the finest pieces of text at whose ends both have a token boundary.

Two tokenizers split one text differently, but sums over cells can be compared. Positions are characters of the
document's own text, so chat templates stay out of the comparison. No score is lost: a token without characters (the
lone space that some tokenizers put before a text) counts with the next character.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.short_repr import ShortRepr
from model.text.encoding import EncodedText


@dataclass(frozen=True, repr=False)
class Cells(ShortRepr):
    """C cells in which both models scored every token, in the order of the text."""

    start: NDArray[np.int32]  # [C] characters [start, end) of the document's text
    end: NDArray[np.int32]  # [C]
    bytes: NDArray[np.int64]  # [C] length in UTF-8
    role: NDArray[np.str_]  # [C]
    token_cell_a: NDArray[np.int64]  # [N_a] the cell of each of A's tokens; -1: in no cell
    token_cell_b: NDArray[np.int64]  # [N_b]

    def __len__(self) -> int:
        return len(self.start)

    def sum_a(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """[N_a] values of A's tokens -> [C] sums over each cell's tokens."""
        return _sum(self.token_cell_a, values, len(self))

    def sum_b(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """[N_b] values of B's tokens -> [C] sums over each cell's tokens."""
        return _sum(self.token_cell_b, values, len(self))

    @property
    def tokens_a(self) -> NDArray[np.int64]:
        """[C] number of A's tokens."""
        return _count(self.token_cell_a, len(self))

    @property
    def tokens_b(self) -> NDArray[np.int64]:
        """[C] number of B's tokens."""
        return _count(self.token_cell_b, len(self))


def common_cells(
    text: str, a: EncodedText, scored_a: NDArray[np.bool_], b: EncodedText, scored_b: NDArray[np.bool_]
) -> Cells:
    """Align two encodings of one document.

    Args:
        text: the document's text.
        a: A's tokens, [N_a].
        scored_a: [N_a] tokens that have scores.
        b: B's tokens, [N_b].
        scored_b: [N_b].
    """
    n = len(text)
    boundary = _boundaries(n, a) & _boundaries(n, b)
    edges = np.flatnonzero(boundary)
    usable = _usable(n, a, scored_a) & _usable(n, b, scored_b)
    lost = np.concatenate([[0], np.cumsum(~usable)])
    start, end = edges[:-1], edges[1:]
    whole = lost[end] == lost[start]
    start, end = start[whole].astype(np.int32), end[whole].astype(np.int32)

    cell_of = np.full(n + 1, -1, dtype=np.int64)
    lengths = end - start
    inside = np.repeat(start, lengths) + (np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths))
    cell_of[inside] = np.repeat(np.arange(len(start)), lengths)

    widths = np.array([len(character.encode("utf-8")) for character in text], dtype=np.int64)
    reach = np.concatenate([[0], np.cumsum(widths)])
    token_a, token_b = _token_cells(a, cell_of), _token_cells(b, cell_of)
    role = np.full(len(start), "", dtype=a.role.dtype if len(a) else "<U9")
    mine = token_a >= 0
    role[token_a[mine]] = a.role[mine]
    return Cells(start, end, reach[end] - reach[start], role, token_a, token_b)


def _boundaries(n: int, tokens: EncodedText) -> NDArray[np.bool_]:
    """[n + 1] positions that no token spans."""
    change = np.zeros(n + 2, dtype=np.int64)
    start, end = tokens.source_start, tokens.source_end
    real = end > start
    np.add.at(change, start[real] + 1, 1)
    np.add.at(change, end[real], -1)
    clear: NDArray[np.bool_] = np.cumsum(change)[: n + 1] == 0
    return clear


def _usable(n: int, tokens: EncodedText, scored: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[n] whether all tokens of a character are scored content."""
    covered, spoilt = np.zeros(n + 1, dtype=np.int64), np.zeros(n + 1, dtype=np.int64)
    content, (first, last) = tokens.source_start >= 0, _reach(n, tokens)
    for change, chosen, start, end in (
        (covered, content, tokens.source_start, tokens.source_end),
        (spoilt, content & ~scored, first, last),
    ):
        np.add.at(change, start[chosen], 1)
        np.add.at(change, end[chosen], -1)
    usable: NDArray[np.bool_] = (np.cumsum(covered)[:n] > 0) & (np.cumsum(spoilt)[:n] == 0)
    return usable


def _token_cells(tokens: EncodedText, cell_of: NDArray[np.int64]) -> NDArray[np.int64]:
    start, end = _reach(len(cell_of) - 1, tokens)
    cells: NDArray[np.int64] = np.where(end > start, cell_of[start], -1)
    return cells


def _reach(n: int, tokens: EncodedText) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """[N] characters [start, end) that each token counts with: its own, or the next one if it has none.

    At the end of the text the next character is the last one. A token of the template keeps -1, -1.
    """
    start, end = tokens.source_start, tokens.source_end
    bare = (start >= 0) & (end == start)
    start = np.where(bare, np.minimum(start, n - 1), start)
    return start, np.where(bare, start + 1, end)


def _sum(cell: NDArray[np.int64], values: NDArray[np.floating], n: int) -> NDArray[np.float64]:
    inside = cell >= 0
    return np.bincount(cell[inside], weights=values[inside].astype(np.float64), minlength=n).astype(np.float64)


def _count(cell: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    return np.bincount(cell[cell >= 0], minlength=n).astype(np.int64)
