"""Prepared examples as rows of tokens: what of them is learnt, and where a strategy starts segments.

Segments are derived here from the stored scores, so that another strategy recomputes nothing. Knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.corpus.rule_inputs import CorpusTokens, row_firsts, row_of
from data.corpus.scored_rows import ROLE_NAMES
from data.prepared import Prepared
from model.segmentation.segment import find_rule, starts_of, valid_parameters
from model.segmentation.solver import POINTS, solve

_ASSISTANT, _TEXT = ROLE_NAMES.index("assistant"), ROLE_NAMES.index("text")


@dataclass(frozen=True)
class TokenRows:
    """R rows of T tokens in all, end to end: the tokens of row i are [offsets[i], offsets[i + 1])."""

    ids: NDArray[np.int64]  # [T]
    learnt: NDArray[np.bool_]  # [T] the loss is taken of these: the response and the token that closes it
    starts: NDArray[np.bool_]  # [T] the token starts a segment; every token of a prompt does
    offsets: NDArray[np.int64]  # [R + 1]
    example: NDArray[np.int64]  # [R] number of the example

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[R] tokens."""
        return np.diff(self.offsets)

    @property
    def learnt_tokens(self) -> NDArray[np.int64]:
        """[R] tokens that are learnt."""
        total = np.concatenate([[0], np.cumsum(self.learnt)])
        return np.asarray(total[self.offsets[1:]] - total[self.offsets[:-1]])

    @property
    def mean_length(self) -> float:
        """Learnt tokens of a segment, on average."""
        return float(self.learnt.sum() / max(1, int((self.learnt & self.starts).sum())))

    def prompt(self, row: int) -> list[int]:
        """The ids of a row before the first that is learnt."""
        one = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        ids: list[int] = self.ids[one][: int(np.flatnonzero(self.learnt[one])[0])].tolist()
        return ids

    def take(self, chosen: NDArray[np.int64]) -> TokenRows:
        """Some rows."""
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return TokenRows(self.ids[at], self.learnt[at], self.starts[at], offsets, self.example[chosen])


@dataclass(frozen=True)
class SegmentedRows:
    """Every prepared example under one strategy."""

    rows: TokenRows
    rule: str
    parameters: Mapping[str, float]
    max_length: int


def cut(
    prepared: Prepared, rule: str, given: Mapping[str, float], max_length: int, target_length: float | None = None
) -> SegmentedRows:
    """Cut the learnt part of every prepared example; a row ends with its last learnt token.

    Args:
        prepared: examples and their scores.
        rule: a strategy of the registry.
        given: its parameters.
        max_length: M.
        target_length: solve the rule's threshold for this mean length.

    Raises:
        MicroStepError: an unknown strategy or parameter, or what it needs was not gathered.
    """
    tokens, parameters = prepared.source.ready(rule, given)
    learnt, kept = _learnt(tokens, prepared.ended[tokens.rows.document])
    inputs = replace(tokens.inputs, prompt=~learnt)
    if target_length is None:
        parameters = valid_parameters(rule, parameters)
    else:
        name = find_rule(rule).solves
        others = {key: value for key, value in parameters.items() if key != name}
        parameters = solve(rule, inputs, target_length, max_length, POINTS, **others).parameters
    starts = starts_of(rule, inputs, parameters, max_length)
    lengths = np.bincount(row_of(tokens.rows.offsets)[kept], minlength=len(tokens.rows))
    rows = TokenRows(
        tokens.rows.ids[kept].astype(np.int64),
        learnt[kept],
        starts[kept],
        np.concatenate([[0], np.cumsum(lengths)]),
        tokens.rows.document.astype(np.int64),
    )
    return SegmentedRows(rows, rule, parameters, max_length)


def _learnt(tokens: CorpusTokens, ended: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[N] tokens to learn: the last answer and the one token that closes it; and [N] tokens up to the last of them.

    An answer that was cut off is not closed. A plain text is an answer but for its first token.
    """
    rows = tokens.rows
    row, position = row_of(rows.offsets), np.arange(len(rows.ids))
    first = np.zeros(len(rows.ids), dtype=bool)
    first[row_firsts(rows.offsets)] = True
    answer = (rows.role == _ASSISTANT) | ((rows.role == _TEXT) & ~first)
    other_turn = ~answer & (rows.start >= 0) & ~((rows.role == _TEXT) & first)  # what somebody else said
    last_other = np.full(len(rows), -1)
    np.maximum.at(last_other, row[other_turn], position[other_turn])
    learnt = answer & (position > last_other[row])
    last = np.full(len(rows), -1)
    np.maximum.at(last, row[learnt], position[learnt])
    closing = last[(last >= 0) & ended] + 1
    closing = closing[(closing < len(rows.ids))]
    closing = closing[(row[closing] == row[np.maximum(closing - 1, 0)]) & (rows.role[closing] != _TEXT)]
    learnt[closing] = True
    last[row[closing]] = closing
    return learnt, position <= last[row]
