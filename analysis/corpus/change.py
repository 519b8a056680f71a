"""What fine-tuning changed over a corpus: the mean scores of two models with the same tokenizer, token by token.

Both stores hold the same tokens, so every difference is paired. Its interval is over documents, and missing if there
are too few (see analysis/intervals.py). Stores are read in pieces of whole rows, whose sums are added in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.corpus.stored_pieces import PIECE_TOKENS, RowReader, row_pieces
from analysis.intervals import Estimate, Units, quotient
from analysis.score_registry import SCORES as EVERY_SCORE
from data.corpus.rule_inputs import missing_scores, refuse_missing_scores
from data.corpus.scored_rows import ROLE_NAMES, ScoredRows
from data.corpus.store import CorpusStore
from model.errors import MicroStepError
from model.text.document import TEMPLATE

SCORES = ("entropy", "confidence", "surprisal")
CONTENT = "content"  # every role except the chat template


@dataclass(frozen=True)
class Change:
    """One score of the tokens of one role, under two models. Entropy and surprisal in nats."""

    role: str
    score: str
    documents: int  # documents that have such tokens
    tokens: int
    a: Estimate
    b: Estimate
    difference: Estimate  # B - A


def changes(a: CorpusStore, b: CorpusStore, piece_tokens: int = PIECE_TOKENS) -> tuple[list[Change], Units]:
    """Every score, by role and over all content, and what the intervals are over.

    Args:
        a: a store of model A's scores, such as the base's.
        b: a store of model B's scores of the same corpus, with the same tokenizer.
        piece_tokens: the most tokens that are read at once, unless a shard or a row has more; no number depends on it.

    Raises:
        MicroStepError: the stores hold different tokens.
        NumericalError: one holds scores that are not finite.
    """
    if a.facts.tokenizer_hash != b.facts.tokenizer_hash:
        raise MicroStepError(
            f"{a.facts.name} and {b.facts.name} have different tokenizers, so their scores are of"
            " different tokens; `micro-step compare` aligns single texts by character"
        )
    sums: dict[tuple[str, str], list[tuple[int, NDArray[np.float64]]]] = {  # of pieces: their first rows, and [r, 3]
        (role, score): [] for role in (*ROLE_NAMES, CONTENT) for score in SCORES
    }
    documents: list[NDArray[np.int32]] = []
    for first, second in _both(a, b, piece_tokens):
        begin = sum(map(len, documents))
        documents.append(first.document)
        row = np.repeat(np.arange(len(first)), np.diff(first.offsets))
        for role in (*ROLE_NAMES, CONTENT):
            chosen = _tokens_of(role, first)
            for score in SCORES:
                x, y = getattr(first, score).astype(np.float64), getattr(second, score).astype(np.float64)
                there = chosen & ~np.isnan(x) & ~np.isnan(y)
                if there.any():
                    sums[role, score].append((begin, _row_sums(x, y, there, row, len(first))))
    document = np.concatenate(documents)
    units = Units.of(document)
    found: list[Change] = []
    for (role, score), parts in sums.items():
        if role == CONTENT and len({change.role for change in found} - {CONTENT, TEMPLATE}) < 2:
            break
        if parts:
            per_row = np.zeros((len(document), 3))
            for begin, part in parts:
                per_row[begin : begin + len(part)] = part
            found.append(_change(role, score, per_row, units, document))
    return found, units


def change_table(found: list[Change]) -> pd.DataFrame:
    """A row for each role and score."""
    return pd.DataFrame(
        [
            {"role": change.role, "score": change.score, "documents": change.documents, "tokens": change.tokens}
            | change.a.columns("a")
            | change.b.columns("b")
            | change.difference.columns("difference")
            | {"clear": change.difference.clear, "unit": EVERY_SCORE[change.score].unit("nats")}
            for change in found
        ]
    )


def _both(a: CorpusStore, b: CorpusStore, piece_tokens: int) -> Iterator[tuple[ScoredRows, ScoredRows]]:
    """The same rows of both stores, some at a time."""
    others, missing, broken = RowReader(b), [0, 0], (set[int](), set[int]())
    for first in row_pieces(a, piece_tokens):
        second = others.take(len(first))
        same = second is not None and np.array_equal(first.offsets, second.offsets)
        if second is None or not same or not np.array_equal(first.ids, second.ids):
            raise _other_tokens(a, b)
        for side, rows in enumerate((first, second)):
            tokens, of = missing_scores(rows)
            missing[side] += tokens
            broken[side].update(of)
        yield first, second
    if not others.ended():
        raise _other_tokens(a, b)
    for side, store in enumerate((a, b)):
        refuse_missing_scores(store, missing[side], broken[side])


def _other_tokens(a: CorpusStore, b: CorpusStore) -> MicroStepError:
    return MicroStepError(
        f"{a.path} and {b.path} hold different tokens; score the same corpus in the same way with both"
    )


def _tokens_of(role: str, rows: ScoredRows) -> NDArray[np.bool_]:
    """[N] the tokens of a role, or of every role except the chat template."""
    chosen: NDArray[np.bool_] = rows.role == ROLE_NAMES.index(TEMPLATE if role == CONTENT else role)
    return ~chosen if role == CONTENT else chosen


def _row_sums(
    x: NDArray[np.float64], y: NDArray[np.float64], there: NDArray[np.bool_], row: NDArray[np.int64], rows: int
) -> NDArray[np.float64]:
    """[R, 3] sums of A, of B, and of tokens."""
    sums = np.zeros((rows, 3))
    for column, values in enumerate((x, y, np.ones_like(x))):
        np.add.at(sums[:, column], row[there], values[there])
    return sums


def _change(role: str, score: str, per_row: NDArray[np.float64], units: Units, document: NDArray[np.int32]) -> Change:
    own = units.sums(per_row)
    sums = units.left_out(own)
    means = quotient(sums[:, :2], sums[:, 2:])
    told = units.estimates(np.column_stack([means, means[:, 1] - means[:, 0]]), own[:, 2])
    tokens = per_row[:, 2]
    documents = len(np.unique(document[tokens > 0]))
    return Change(role, score, documents, int(tokens.sum()), told.at(0), told.at(1), told.at(2))
