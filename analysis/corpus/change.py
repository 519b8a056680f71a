"""What fine-tuning changed over a corpus: the mean scores of two models with the same tokenizer, token by token.

Both stores hold the same tokens, so every difference is paired. Its interval is over documents, and missing if there
are too few (see analysis/intervals.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.intervals import Estimate, Units, quotient
from analysis.score_registry import SCORES as EVERY_SCORE
from data.corpus.rule_inputs import CorpusSource
from data.corpus.scored_rows import ROLE_NAMES, ScoredRows
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


def changes(a: CorpusSource, b: CorpusSource) -> list[Change]:
    """Every score, by role and over all content.

    Args:
        a: a store of model A's scores, such as the base's.
        b: a store of model B's scores of the same corpus, with the same tokenizer.

    Raises:
        MicroStepError: the stores hold different tokens.
    """
    first, second = a.tokens.rows, b.tokens.rows
    _check_same(a, b)
    units = Units.of(first.document)
    row = np.repeat(np.arange(len(first)), np.diff(first.offsets))
    found: list[Change] = []
    for role in (*ROLE_NAMES, CONTENT):
        if role == CONTENT and len({change.role for change in found} - {TEMPLATE}) < 2:
            break
        chosen = first.role != ROLE_NAMES.index(TEMPLATE) if role == CONTENT else first.role == ROLE_NAMES.index(role)
        for score in SCORES:
            x, y = getattr(first, score).astype(np.float64), getattr(second, score).astype(np.float64)
            there = chosen & ~np.isnan(x) & ~np.isnan(y)
            if there.any():
                found.append(_change(role, score, x, y, there, row, units, first))
    return found


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


def _change(
    role: str,
    score: str,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    there: NDArray[np.bool_],
    row: NDArray[np.int64],
    units: Units,
    rows: ScoredRows,
) -> Change:
    parts = np.zeros((len(rows), 3))  # [R] sums of A, of B, and of tokens
    for column, values in enumerate((x, y, np.ones_like(x))):
        np.add.at(parts[:, column], row[there], values[there])
    own = units.sums(parts)
    sums = units.left_out(own)
    means = quotient(sums[:, :2], sums[:, 2:])
    told = units.estimates(np.column_stack([means, means[:, 1] - means[:, 0]]), own[:, 2])
    documents = len(np.unique(rows.document[np.unique(row[there])]))
    return Change(role, score, documents, int(there.sum()), told.at(0), told.at(1), told.at(2))


def _check_same(a: CorpusSource, b: CorpusSource) -> None:
    first, second = a.tokens.rows, b.tokens.rows
    if a.store.facts.tokenizer_hash != b.store.facts.tokenizer_hash:
        raise MicroStepError(
            f"{a.store.facts.name} and {b.store.facts.name} have different tokenizers, so their scores are of"
            " different tokens; `micro-step compare` aligns single texts by character"
        )
    if not np.array_equal(first.offsets, second.offsets) or not np.array_equal(first.ids, second.ids):
        raise MicroStepError(
            f"{a.store.path} and {b.store.path} hold different tokens; score the same corpus in the same way with both"
        )
