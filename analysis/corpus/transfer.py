"""Whether a strategy segments a corpus alike under two models: boundaries are compared by characters.

A model has no boundary where only the other tokenizer has a token edge, so even similar models cannot agree perfectly.
So each F1 comes with the F1 of independent boundaries at the same rates (chance), and with the F1 if every token is a
segment (ceiling of the tokenizers). Prompts, and boundaries that every rule has, are not counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.corpus.counts import Counting, Marked, pairs
from analysis.corpus.report import CutCorpus, StoredRows
from analysis.intervals import Estimate, Units
from data.corpus.rule_inputs import continuation, row_of
from data.corpus.scored_rows import ScoredRows
from model.errors import MicroStepError
from model.short_repr import ShortRepr

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Transfer:
    """One strategy under two models, over the characters that both read."""

    a: CutCorpus
    b: CutCorpus
    characters: int
    rows: int  # documents or windows that both read
    precision: Estimate  # share of B's boundaries that A has
    recall: Estimate  # share of A's boundaries that B has
    f1: Estimate
    window_diff: Estimate
    pk: Estimate
    chance: float  # F1 by chance: boundaries placed independently at each model's rate
    ceiling: float  # F1 of the token edges


@dataclass(frozen=True, repr=False)
class _TextRows(ShortRepr):
    """Rows of one store with their texts, and the segments of S strategies in them."""

    rows: ScoredRows  # R rows, N tokens
    starts: Bools  # [S, N]
    known: Bools  # [S, R]
    forced: Bools  # [N]
    prompt: Bools  # [N]

    @property
    def keys(self) -> NDArray[np.int64]:
        """[R] rising: the document and window of each row."""
        return (self.rows.document.astype(np.int64) << 32) | self.rows.piece

    def part(self, a: int, b: int) -> _TextRows:
        """Rows [a, b)."""
        tokens = slice(*self.rows.offsets[[a, b]].tolist())
        return _TextRows(
            self.rows.part(a, b),
            self.starts[:, tokens],
            self.known[:, a:b],
            self.forced[tokens],
            self.prompt[tokens],
        )

    @classmethod
    def join(cls, parts: Sequence[_TextRows]) -> _TextRows:
        return cls(
            ScoredRows.join([part.rows for part in parts]),
            np.concatenate([part.starts for part in parts], axis=1),
            np.concatenate([part.known for part in parts], axis=1),
            np.concatenate([part.forced for part in parts]),
            np.concatenate([part.prompt for part in parts]),
        )


@dataclass(frozen=True)
class _Shared:
    """Rows of both stores with common texts, and the P characters that both models read."""

    a: _TextRows
    b: _TextRows
    rows_a: NDArray[np.int64]  # [R] of `a`
    rows_b: NDArray[np.int64]  # [R] of `b`
    offsets: NDArray[np.int64]  # [R + 1] of the P characters

    def marked(self, strategy: int, known: Bools, units: Units, always: tuple[list[Bools], Bools, Bools]) -> Marked:
        """A strategy's boundaries under both models, and the token edges of both."""
        edges, forced, counted = always
        starts = [
            _characters(side.rows, side.starts[strategy], rows, self.offsets)
            for side, rows in ((self.a, self.rows_a), (self.b, self.rows_b))
        ]
        offsets = np.concatenate([[0], np.cumsum(counted)])[self.offsets].astype(np.int64)
        marks = np.stack([*starts, *edges])[:, counted]
        return Marked(marks, offsets, np.stack([known] * 4), units, forced[counted])

    def always(self) -> tuple[list[Bools], Bools, Bools]:
        """Whatever the strategy: the token starts of both models, what is forced under one, what is outside prompts."""
        sides = (self.a, self.rows_a), (self.b, self.rows_b)
        edges = [_characters(s.rows, np.ones(len(s.forced), bool), rows, self.offsets) for s, rows in sides]
        forced = np.any([_characters(s.rows, s.forced, rows, self.offsets) for s, rows in sides], axis=0)
        counted = ~np.any([_prompt(s.rows, s.prompt, rows, self.offsets) for s, rows in sides], axis=0)
        return edges, forced, counted

    def known(self, strategy: int) -> Bools:
        known: Bools = self.a.known[strategy, self.rows_a] & self.b.known[strategy, self.rows_b]
        return known


def transfer(a: StoredRows, cuts_a: Sequence[CutCorpus], b: StoredRows, cuts_b: Sequence[CutCorpus]) -> list[Transfer]:
    """Compare each of S strategies under two models. Both stores are read three times, piece by piece.

    Args:
        a: model A's store.
        cuts_a: [S] segments under A.
        b: model B's store of the same corpus.
        cuts_b: [S] segments of the same strategies under B.

    Raises:
        MicroStepError: the stores have no text in common.
    """
    documents = [each.a.rows.document[each.rows_a] for each in _shared(a, (), b, ())]
    if not any(map(len, documents)):
        raise MicroStepError(
            f"{a.store.path} and {b.store.path} have no text in common; score the same corpus with both models, long"
            " documents with --window-characters"
        )
    units = Units.of(np.concatenate(documents))
    counting = [Counting() for _ in cuts_a]
    characters, rows = np.zeros(len(cuts_a), dtype=np.int64), np.zeros(len(cuts_a), dtype=np.int64)
    for windows in (False, True):
        done = 0
        for both in _shared(a, cuts_a, b, cuts_b):
            here = units.part(slice(done, done + len(both.rows_a)))
            done += len(both.rows_a)
            always = both.always()
            for s, each in enumerate(counting):
                known = both.known(s)
                marked = both.marked(s, known, here, always)
                if windows:
                    each.add_windows(marked)
                    continue
                each.add(marked)
                characters[s] += int((np.diff(marked.offsets) * known).sum())
                rows[s] += int(known.sum())
    pairs_of_cuts = zip(cuts_a, cuts_b, counting, characters.tolist(), rows.tolist(), strict=True)
    return [_one(*each, units) for each in pairs_of_cuts]


def _one(a: CutCorpus, b: CutCorpus, counting: Counting, characters: int, rows: int, units: Units) -> Transfer:
    counts = counting.counts()
    found, total = pairs(counts.of(2), units), counts.shared.sum(0)
    tokens_a, tokens_b, common = total[2, 2], total[3, 3], total[2, 3]
    in_a, in_b = total[0, 0], total[1, 1]
    by_chance = common * in_a * in_b / max(tokens_a * tokens_b, 1)
    return Transfer(
        a,
        b,
        characters,
        rows,
        found.precision.at(0, 1),
        found.recall.at(0, 1),
        found.f1.at(0, 1),
        found.window_diff.at(0, 1),
        found.pk.at(0, 1),
        float(2 * by_chance / (in_a + in_b)) if in_a + in_b else float("nan"),
        float(2 * common / (tokens_a + tokens_b)) if tokens_a + tokens_b else float("nan"),
    )


def _shared(
    a: StoredRows, cuts_a: Sequence[CutCorpus], b: StoredRows, cuts_b: Sequence[CutCorpus]
) -> Iterator[_Shared]:
    """The rows of both stores with the same document, window and text, for each piece of A."""
    others, ended = _texts(b, cuts_b), False
    held: list[_TextRows] = []
    for one, end in _with_ends(_texts(a, cuts_a)):
        while not ended and not (held and len(held[-1].keys) and held[-1].keys[-1] >= end):
            if (more := next(others, None)) is None:
                ended = True
            else:
                held.append(more)
        other = _TextRows.join(held)
        split = int(np.searchsorted(other.keys, end))
        held = [other.part(split, len(other.rows))]
        yield _matched(one, other.part(0, split))


def _texts(source: StoredRows, cuts: Sequence[CutCorpus]) -> Iterator[_TextRows]:
    for piece, rows in zip(source.pieces(), source.texts(), strict=True):
        n, prompt = len(piece.inputs), piece.inputs.prompt
        starts = [cut.starts_in(piece) for cut in cuts]
        known = [cut.known[piece.rows] for cut in cuts]
        yield _TextRows(
            rows,
            np.stack(starts) if cuts else np.zeros((0, n), dtype=bool),
            np.stack(known) if cuts else np.zeros((0, len(rows)), dtype=bool),
            piece.inputs.forced,
            np.zeros(n, dtype=bool) if prompt is None else prompt,
        )


def _with_ends(texts: Iterator[_TextRows]) -> Iterator[tuple[_TextRows, int]]:
    """Each piece with the key at which the next one begins."""
    held = next(texts, None)
    for following in texts:
        if held is not None:
            yield held, int(following.keys[0])
        held = following
    if held is not None:
        yield held, 1 << 62


def _matched(a: _TextRows, b: _TextRows) -> _Shared:
    _, rows_a, rows_b = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
    kept = []
    for i, j in zip(rows_a.tolist(), rows_b.tolist(), strict=True):
        n = min(len(a.rows.text[i]), len(b.rows.text[j]))
        same = a.rows.text[i][:n] == b.rows.text[j][:n] and a.rows.text_start[i] == b.rows.text_start[j]
        if n and same:
            kept.append((i, j, n))
    rows = np.array(kept, dtype=np.int64).reshape(-1, 3)
    return _Shared(a, b, rows[:, 0], rows[:, 1], np.concatenate([[0], np.cumsum(rows[:, 2])]).astype(np.int64))


def _characters(held: ScoredRows, starts: Bools, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> Bools:
    """[P] whether a segment starts at a character; never inside a character, nor in the chat template."""
    row = row_of(held.offsets)
    place = np.full(len(held), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    here = place[row]
    inside = held.start - held.text_start[row]
    real = starts & ~continuation(held) & (held.start >= 0) & (here >= 0)
    real[real] = inside[real] < np.diff(offsets)[here[real]]
    found = np.zeros(int(offsets[-1]), dtype=bool)
    found[offsets[:-1][here[real]] + inside[real]] = True
    return found


def _prompt(held: ScoredRows, prompt: Bools, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> Bools:
    """[P] whether a character belongs to a token of the prompt."""
    found = np.zeros(int(offsets[-1]) + 1, dtype=np.int64)
    if not prompt.any():
        return found[:-1] > 0
    row = row_of(held.offsets)
    place = np.full(len(held), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    here = prompt & (held.start >= 0) & (place[row] >= 0)
    at, before = place[row[here]], held.text_start[row[here]]
    for sign, edge in ((1, held.start), (-1, held.end)):
        np.add.at(found, offsets[at] + np.minimum(edge[here] - before, np.diff(offsets)[at]), sign)
    return np.cumsum(found[:-1]) > 0
