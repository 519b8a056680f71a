"""Whether a strategy segments a corpus alike under two models: boundaries are compared by characters.

A model has no boundary where only the other tokenizer has a token edge, so even similar models cannot agree perfectly.
So each F1 comes with the F1 of independent boundaries at the same rates (chance), and with the F1 if every token is a
segment (ceiling of the tokenizers). Prompts, and boundaries that every rule has, are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.corpus.counts import count, pairs
from analysis.corpus.report import CutCorpus
from analysis.intervals import Estimate, Units
from data.corpus.rule_inputs import CorpusSource, continuation, row_of
from model.errors import MicroStepError

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


@dataclass(frozen=True)
class Shared:
    """The rows of two stores with common texts, and the P characters that both models read."""

    a: NDArray[np.int64]  # [R] rows of A
    b: NDArray[np.int64]  # [R] rows of B
    offsets: NDArray[np.int64]  # [R + 1] of the P characters


def shared_text(a: CorpusSource, b: CorpusSource) -> Shared:
    """Find the rows with the same document, window and text."""
    rows_a, rows_b = a.tokens.rows, b.tokens.rows
    keys = [list(zip(rows.document.tolist(), rows.piece.tolist(), strict=True)) for rows in (rows_a, rows_b)]
    place = {key: i for i, key in enumerate(keys[1])}
    found = [(i, place[key], min(len(rows_a.text[i]), len(rows_b.text[place[key]])))
             for i, key in enumerate(keys[0]) if key in place]  # fmt: skip
    kept = [
        (i, j, n)
        for i, j, n in found
        if n and rows_a.text[i][:n] == rows_b.text[j][:n] and rows_a.text_start[i] == rows_b.text_start[j]
    ]
    if not kept:
        raise MicroStepError(
            f"{a.store.path} and {b.store.path} have no text in common; score the same corpus with both models, long"
            " documents with --window-characters"
        )
    rows = np.array(kept, dtype=np.int64)
    return Shared(rows[:, 0], rows[:, 1], np.concatenate([[0], np.cumsum(rows[:, 2])]).astype(np.int64))


def transfer(
    a: CorpusSource, cuts_a: Sequence[CutCorpus], b: CorpusSource, cuts_b: Sequence[CutCorpus]
) -> list[Transfer]:
    """Compare each of S strategies under two models.

    Args:
        a: model A's store.
        cuts_a: [S] segments under A.
        b: model B's store of the same corpus.
        cuts_b: [S] segments of the same strategies under B.

    Raises:
        MicroStepError: the stores have no text in common.
    """
    both = shared_text(a, b)
    units = Units.of(a.tokens.rows.document[both.a])
    sides = (a, both.a), (b, both.b)
    edges = [_characters(s, np.ones(len(s.tokens.inputs), bool), rows, both.offsets) for s, rows in sides]
    forced = np.any([_characters(s, s.tokens.inputs.forced, rows, both.offsets) for s, rows in sides], axis=0)
    counted = ~np.any([_prompt(s, rows, both.offsets) for s, rows in sides], axis=0)
    read = _Read(both, units, edges, forced, counted)
    return [_one(a, one, b, other, read) for one, other in zip(cuts_a, cuts_b, strict=True)]


@dataclass(frozen=True)
class _Read:
    """The P characters that both models read, whatever the strategy."""

    both: Shared
    units: Units
    edges: list[Bools]  # [P] token starts, for each model
    forced: Bools  # [P] whether every rule starts a segment here under one of the models
    counted: Bools  # [P] outside prompts

    @property
    def offsets(self) -> NDArray[np.int64]:
        """[R + 1] offsets of the rows among the counted characters."""
        return np.concatenate([[0], np.cumsum(self.counted)])[self.both.offsets].astype(np.int64)


def _one(
    a: CorpusSource,
    one: CutCorpus,
    b: CorpusSource,
    other: CutCorpus,
    read: _Read,
) -> Transfer:
    both, units, offsets = read.both, read.units, read.offsets
    starts = [_characters(a, one.starts, both.a, both.offsets), _characters(b, other.starts, both.b, both.offsets)]
    known = one.known[both.a] & other.known[both.b]
    marks = np.stack([*starts, *read.edges])[:, read.counted]
    counts = count(marks, offsets, np.stack([known] * 4), units, read.forced[read.counted])
    found, total = pairs(counts.of(2), units), counts.shared.sum(0)
    tokens_a, tokens_b, common = total[2, 2], total[3, 3], total[2, 3]
    in_a, in_b = total[0, 0], total[1, 1]
    by_chance = common * in_a * in_b / max(tokens_a * tokens_b, 1)
    return Transfer(
        one,
        other,
        int((np.diff(offsets) * known).sum()),
        int(known.sum()),
        found.precision.at(0, 1),
        found.recall.at(0, 1),
        found.f1.at(0, 1),
        found.window_diff.at(0, 1),
        found.pk.at(0, 1),
        float(2 * by_chance / (in_a + in_b)) if in_a + in_b else float("nan"),
        float(2 * common / (tokens_a + tokens_b)) if tokens_a + tokens_b else float("nan"),
    )


def _characters(source: CorpusSource, starts: Bools, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> Bools:
    """[P] whether a segment starts at a character; never inside a character, nor in the chat template."""
    held = source.tokens.rows
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


def _prompt(source: CorpusSource, rows: NDArray[np.int64], offsets: NDArray[np.int64]) -> Bools:
    """[P] whether a character belongs to a token of the prompt."""
    found = np.zeros(int(offsets[-1]) + 1, dtype=np.int64)
    held, prompt = source.tokens.rows, source.tokens.inputs.prompt
    if prompt is None:
        return found[:-1] > 0
    row = row_of(held.offsets)
    place = np.full(len(held), -1, dtype=np.int64)
    place[rows] = np.arange(len(rows))
    here = prompt & (held.start >= 0) & (place[row] >= 0)
    at, before = place[row[here]], held.text_start[row[here]]
    for sign, edge in ((1, held.start), (-1, held.end)):
        np.add.at(found, offsets[at] + np.minimum(edge[here] - before, np.diff(offsets)[at]), sign)
    return np.cumsum(found[:-1]) > 0
