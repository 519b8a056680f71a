"""Prepared examples as rows of tokens, with the tokens that are learned and the segments of a strategy.

Segments are derived here from the stored scores, so another strategy recomputes nothing. This module knows no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data.corpus.rule_inputs import CorpusTokens, continuation, row_of
from data.learned import learned_tokens
from data.prepared import Prepared
from model.errors import MicroStepError
from model.segmentation.boundaries import Pointwise, find_starts
from model.segmentation.segment import find_rule, starts_of, valid_parameters
from model.segmentation.solver import POINTS, solve

LONGEST_MOVED = 64  # tokens of a segment that was moved from another tokenizer


@dataclass(frozen=True)
class TokenRows:
    """R rows of T tokens in all, end to end: the tokens of row i are [offsets[i], offsets[i + 1])."""

    ids: NDArray[np.int64]  # [T]
    loss_mask: NDArray[np.bool_]  # [T] tokens in the loss: the response and the token that closes it
    starts: NDArray[np.bool_]  # [T] the token starts a segment; every token of a prompt does
    offsets: NDArray[np.int64]  # [R + 1]
    example: NDArray[np.int64]  # [R] index of the example
    prefix: int = 0  # number of tokens at the beginning of each row that are not the example's, such as BOS

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[R] number of tokens."""
        return np.diff(self.offsets)

    @property
    def loss_tokens(self) -> NDArray[np.int64]:
        """[R] number of tokens in the loss."""
        total = np.concatenate([[0], np.cumsum(self.loss_mask)])
        return np.asarray(total[self.offsets[1:]] - total[self.offsets[:-1]])

    @property
    def mean_length(self) -> float:
        return float(self.loss_mask.sum() / max(1, int((self.loss_mask & self.starts).sum())))

    def prompt(self, row: int) -> list[int]:
        """Return the ids of a row before its first learned token."""
        one = slice(int(self.offsets[row]), int(self.offsets[row + 1]))
        ids: list[int] = self.ids[one][: int(np.flatnonzero(self.loss_mask[one])[0])].tolist()
        return ids

    def take(self, chosen: NDArray[np.int64]) -> TokenRows:
        lengths = self.lengths[chosen]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        indices = np.repeat(self.offsets[:-1][chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return TokenRows(
            self.ids[indices], self.loss_mask[indices], self.starts[indices], offsets, self.example[chosen], self.prefix
        )

    def after(self, prefix: Sequence[int]) -> TokenRows:
        """Return rows that begin with more tokens, which are prompt. What was the first token stays unlearned."""
        if not prefix:
            return self
        begins = self.offsets[:-1]
        before = np.repeat(begins, len(prefix))
        loss_mask = self.loss_mask.copy()
        loss_mask[begins[self.lengths > 0]] = False
        return TokenRows(
            np.insert(self.ids, before, np.tile(np.asarray(prefix, dtype=np.int64), len(self))),
            np.insert(loss_mask, before, False),
            np.insert(self.starts, before, True),
            self.offsets + len(prefix) * np.arange(len(self) + 1),
            self.example,
            self.prefix + len(prefix),
        )


@dataclass(frozen=True)
class SegmentedRows:
    """All prepared examples under one strategy."""

    rows: TokenRows
    rule: str
    parameters: Mapping[str, float]
    max_length: int


def segment_examples(
    prepared: Prepared, rule: str, given: Mapping[str, float], max_length: int, target_length: float | None = None
) -> SegmentedRows:
    """Segment the learned part of every prepared example; a row ends with its last learned token."""
    whole = _segmented(prepared, rule, given, max_length, target_length)
    return SegmentedRows(_rows(whole, whole.starts), rule, whole.parameters, max_length)


def segment_as_under(
    prepared: Prepared,
    other: Prepared,
    rule: str,
    given: Mapping[str, float],
    max_length: int,
    target_length: float | None = None,
) -> SegmentedRows:
    """Segment every prepared example where the same example is segmented under another model.

    A token starts a segment if one starts at its first character there. No segment has more than LONGEST_MOVED tokens.

    Raises:
        MicroStepError: the two do not hold the same examples.
    """
    if not np.array_equal(prepared.held_out, other.held_out) or not np.array_equal(prepared.origin, other.origin):
        raise MicroStepError(f"{prepared.path} and {other.path} hold other examples; prepare both with one mix")
    theirs = _segmented(other, rule, given, max_length, target_length)
    whole = _segmented(prepared, "fixed", {"k": 1}, 1, None)
    opened = _characters(theirs.tokens)[theirs.starts & ~continuation(theirs.tokens.rows)]
    joins = ~np.isin(_characters(whole.tokens), opened[opened >= 0]) | continuation(whole.tokens.rows)
    inputs = replace(whole.tokens.inputs, prompt=~whole.loss_mask)
    starts = find_starts(Pointwise(joins, joins.astype(np.float64)), inputs.forced, LONGEST_MOVED)
    return SegmentedRows(_rows(whole, starts), rule, theirs.parameters, LONGEST_MOVED)


@dataclass(frozen=True)
class _Segmented:
    """All tokens of all examples, those that are not learned included."""

    tokens: CorpusTokens
    loss_mask: NDArray[np.bool_]  # [N]
    kept: NDArray[np.bool_]  # [N] up to the last learned token of the row
    starts: NDArray[np.bool_]  # [N]
    parameters: Mapping[str, float]


def _segmented(
    prepared: Prepared, rule: str, given: Mapping[str, float], max_length: int, target_length: float | None
) -> _Segmented:
    tokens, parameters = prepared.source.ready(rule, given)
    loss_mask, kept = learned_tokens(tokens.rows, prepared.ended[tokens.rows.document])
    inputs = replace(tokens.inputs, prompt=~loss_mask)
    if target_length is None:
        parameters = valid_parameters(rule, parameters)
    else:
        name = find_rule(rule).solves
        others = {key: value for key, value in parameters.items() if key != name}
        parameters = solve(rule, inputs, target_length, max_length, POINTS, **others).parameters
    return _Segmented(tokens, loss_mask, kept, starts_of(rule, inputs, parameters, max_length), parameters)


def _rows(whole: _Segmented, starts: NDArray[np.bool_]) -> TokenRows:
    rows, kept = whole.tokens.rows, whole.kept
    lengths = np.bincount(row_of(rows.offsets)[kept], minlength=len(rows))
    return TokenRows(
        rows.ids[kept].astype(np.int64),
        whole.loss_mask[kept],
        starts[kept],
        np.concatenate([[0], np.cumsum(lengths)]),
        rows.document.astype(np.int64),
    )


def _characters(tokens: CorpusTokens) -> NDArray[np.int64]:
    """[N] a number for the document and the character in which a token starts; -1 without one."""
    rows = tokens.rows
    document = rows.document.astype(np.int64)[row_of(rows.offsets)]
    return np.where(rows.start >= 0, (document << 32) + rows.start, -1)


@dataclass(frozen=True)
class StrategyRow:
    """One strategy on all responses."""

    strategy: str
    mean_length: float  # learned tokens per macro step
    shares: tuple[float, ...]  # shares of segments with 1 .; M tokens


def strategy_rows(prepared: Prepared, max_length: int) -> list[StrategyRow]:
    """Return a row for each rule that needs only stored features; none if there is nothing to learn."""
    table = []
    for name in prepared.source.rules():
        rows = segment_examples(prepared, name, {}, max_length).rows
        starts = np.flatnonzero(rows.starts & rows.loss_mask)
        if not len(starts):
            return []
        ends = np.append(starts[1:], len(rows.ids))
        row_end = rows.offsets[np.searchsorted(rows.offsets, starts, side="right")]
        lengths = np.minimum(ends, row_end) - starts
        parameters = ", ".join(f"{p.name} {p.default:g}" for p in find_rule(name).parameters)
        shares = tuple(float((lengths == n).mean()) for n in range(1, max_length + 1))
        table.append(StrategyRow(f"{name}({parameters})", float(lengths.mean()), shares))
    return table
