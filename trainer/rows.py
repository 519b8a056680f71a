"""Training rows: prepared examples as token ids, what of them is learnt, and where segments start.

Segments are derived here from the stored scores, so that another strategy recomputes nothing. Knows no model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.corpus.inputs import CorpusTokens, row_firsts, row_of
from data.corpus.rows import ROLE_NAMES
from data.prepared import Prepared
from model.errors import MicroStepError
from model.segmentation import SegmentInputs, find_rule, starts_of, valid_parameters
from model.solver import POINTS, solve
from trainer.recipe import Segmentation

_ASSISTANT, _TEXT = ROLE_NAMES.index("assistant"), ROLE_NAMES.index("text")


@dataclass(frozen=True)
class Rows:
    """R rows of T tokens in all, end to end: the tokens of row i are [offsets[i], offsets[i + 1])."""

    ids: NDArray[np.int64]  # [T]
    learnt: NDArray[np.bool_]  # [T] the loss is taken of these: the response and the token that closes it
    starts: NDArray[np.bool_]  # [T] the token starts a segment; every token of a prompt does
    offsets: NDArray[np.int64]  # [R + 1]
    repeat: NDArray[np.int64]  # [R] how often a row comes in an epoch

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[R] tokens."""
        return np.diff(self.offsets)

    @property
    def mean_length(self) -> float:
        """Learnt tokens of a segment, on average."""
        return float(self.learnt.sum() / max(1, int((self.learnt & self.starts).sum())))

    def take(self, chosen: NDArray[np.int64]) -> Rows:
        """Some rows."""
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Rows(self.ids[at], self.learnt[at], self.starts[at], offsets, self.repeat[chosen])


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on, and what is only measured on."""

    train: Rows
    held_out: Rows
    notes: tuple[str, ...]


def training_rows(prepared: Prepared, segmentation: Segmentation | None) -> TrainingRows:
    """Cut every prepared example.

    Args:
        prepared: examples and their scores.
        segmentation: the strategy; None: every token is a segment.

    Raises:
        MicroStepError: an unknown strategy or parameter, what it needs was not gathered, or nothing is left to learn.
    """
    rule = segmentation.rule if segmentation is not None else "fixed"
    given = dict(segmentation.parameters) if segmentation is not None else {"k": 1}
    tokens, given = prepared.source.ready(rule, given)
    learnt, kept = _learnt(tokens, prepared.ended[tokens.rows.document])
    inputs = replace(tokens.inputs, prompt=~learnt)
    most = segmentation.max_length if segmentation is not None else 1
    parameters = _solved(rule, given, inputs, segmentation) if segmentation is not None else given
    starts = starts_of(rule, inputs, valid_parameters(rule, parameters), most)
    row = row_of(tokens.rows.offsets)
    lengths = np.bincount(row[kept], minlength=len(tokens.rows))
    rows = Rows(
        tokens.rows.ids[kept].astype(np.int64),
        learnt[kept],
        starts[kept],
        np.concatenate([[0], np.cumsum(lengths)]),
        prepared.repeat[tokens.rows.document],
    )
    useful = np.bincount(row[kept], learnt[kept], minlength=len(rows)) > 0
    held_out = prepared.held_out[tokens.rows.document]
    train = rows.take(np.flatnonzero(useful & ~held_out))
    if not len(train):
        raise MicroStepError(f"{prepared.path} holds no response to learn; check the mix and max_tokens")
    notes = [f"{int((~useful).sum()):,} examples hold nothing to learn and are left out"] if not useful.all() else []
    if segmentation is not None:
        shown = ", ".join(f"{name} {value:.6g}" for name, value in parameters.items())
        notes.append(f"segments: {rule}({shown}), at most {most}: {train.mean_length:.3f} tokens on average")
    return TrainingRows(train, rows.take(np.flatnonzero(useful & held_out)), tuple(notes))


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


def _solved(rule: str, given: dict[str, float], inputs: SegmentInputs, wanted: Segmentation) -> dict[str, float]:
    """The rule's parameters, its threshold solved for the target length if there is one."""
    if wanted.target_length is None:
        return valid_parameters(rule, given)
    name = find_rule(rule).solves
    others = {key: value for key, value in given.items() if key != name}
    return solve(rule, inputs, wanted.target_length, wanted.max_length, POINTS, **others).parameters
