"""Judges strategies on a corpus from its store: lengths, agreement with words and each other, with intervals.

All numbers come from counts per document, so intervals over documents need no second count. For a single document they
equal those of analysis/segmentation/metrics.py. Rows are looked at in pieces, and every number is a whole sum over
them, so it does not depend on how a store is divided. transfer.py compares two stores by characters.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.corpus.counts import Marked, Pairs, count_in_pieces, pairs
from analysis.intervals import SHARE, Estimate, Estimates, Floats, Units, quotient
from data.corpus.features import FeatureSpec
from data.corpus.rule_inputs import CorpusPiece, row_of, rules_for, settle
from data.corpus.scored_rows import ScoredRows
from data.corpus.store import CorpusStore
from model.errors import MicroStepError
from model.segmentation.rule_inputs import SegmentInputs
from model.segmentation.segment import MAX_LENGTH, RULES, check_max_length, find_rule, starts_of, valid_parameters
from model.segmentation.solver import POINTS, solve_in_parts
from model.short_repr import ShortRepr

Bools = NDArray[np.bool_]


class StoredRows(Protocol):
    """The rows of a store, whole (`CorpusSource`) or read in pieces (`StoredPieces`)."""

    @property
    def store(self) -> CorpusStore: ...
    @property
    def specs(self) -> Sequence[FeatureSpec]: ...
    @property
    def document(self) -> NDArray[np.int32]: ...
    @property
    def offsets(self) -> NDArray[np.int64]: ...
    def pieces(self) -> Iterable[CorpusPiece]: ...
    def texts(self) -> Iterable[ScoredRows]: ...


@dataclass(frozen=True)
class Candidate:
    """A rule with parameters, of which one may be solved for a mean length."""

    rule: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    target_length: float | None = None  # tokens per segment; None: no parameter is solved


@dataclass(frozen=True)
class LengthCurve:
    """The mean length as a function of the solved parameter."""

    parameter: str
    value: Floats  # [C] rising
    mean_length: Estimates  # [C] tokens


@dataclass(frozen=True, repr=False)
class CutCorpus(ShortRepr):
    """The segments of a strategy in the N tokens of R rows of a store."""

    source: StoredRows
    strategy: Candidate
    parameters: dict[str, float]  # all parameters of the rule, including the solved one
    max_length: int  # M
    known: Bools  # [R] whether a row has what the rule needs
    spec: FeatureSpec | None = None  # of the gathered values that it needs
    solved: tuple[str, Floats] | None = None  # the solved parameter, and [C] the values of its curve

    def starts_in(self, piece: CorpusPiece, parameters: Mapping[str, float] | None = None) -> Bools:
        """[N] starts of segments in a piece, under these parameters or its own; false in rows where unknown."""
        inputs, known = piece.inputs_with(self.spec)
        found = starts_of(self.strategy.rule, inputs, parameters or self.parameters, self.max_length)
        if known.all():
            return found
        whole = np.zeros(int(piece.offsets[-1]), dtype=bool)
        whole[known[row_of(piece.offsets)]] = found
        return whole

    @cached_property
    def starts(self) -> Bools:
        """[N] starts of segments; false in rows where they are unknown."""
        return np.concatenate([self.starts_in(piece) for piece in self.source.pieces()])

    @property
    def label(self) -> str:
        """The rule, with what distinguishes it from others of the same rule."""
        set_here = [f"{name}={value:g}" for name, value in self.strategy.parameters.items()]
        return " ".join([self.strategy.rule, *set_here])


@dataclass(frozen=True, repr=False)
class StrategyReport(ShortRepr):
    """The results of a strategy on a corpus, without prompts."""

    cut: CutCorpus
    tokens: int
    segments: int
    documents: int  # documents with tokens in rows where the strategy is known
    mean_length: Estimate  # tokens
    singletons: Estimate  # share of segments of one token
    histogram: NDArray[np.int64]  # [L + 1] segments of each length, from 0 to the longest
    curve: LengthCurve | None


@dataclass(frozen=True, repr=False)
class CorpusReport(ShortRepr):
    """S strategies on one corpus."""

    source: StoredRows
    max_length: int  # M
    strategies: tuple[StrategyReport, ...]  # [S]
    words: Pairs  # [S + 1, S + 1]; segmentation S are the words
    pairs: Pairs  # [S, S] without the words
    units: Units  # what the intervals are over

    @property
    def notes(self) -> tuple[str, ...]:
        gathered = tuple(spec.meaning for spec in self.source.specs if not spec.begin)
        return (*self.source.store.notes, *gathered, self.units.meaning)


def strategies_for(
    source: StoredRows, rules: Sequence[str] = (), settings: Mapping[str, float] | None = None, target: float = 2.0
) -> list[Candidate]:
    """The strategies of a report. Each rule is solved for a mean length, unless its parameter is set.

    Args:
        source: the store of the corpus.
        rules: names; empty for every rule that the store can serve.
        settings: parameters, each set for every rule that has it.
        target: mean length, in tokens.
    """
    chosen, given = [find_rule(name) for name in rules or rules_for(source.specs)], dict(settings or {})
    known = {parameter.name for rule in chosen for parameter in rule.parameters}
    stray = [name for name in given if name not in known]
    if stray:
        raise MicroStepError(
            f"no chosen strategy has a parameter {stray[0]!r}; they have {', '.join(sorted(known)) or 'none'}"
        )
    found = []
    for rule in chosen:
        mine = {parameter.name: given[parameter.name] for parameter in rule.parameters if parameter.name in given}
        open_ = rule.solves is not None and rule.solves not in mine
        found.append(Candidate(rule.name, mine, target if open_ else None))
    return found


def cut_corpus(source: StoredRows, strategy: Candidate, max_length: int = MAX_LENGTH) -> CutCorpus:
    """Segment every row of a store that has what the rule needs."""
    check_max_length(max_length)
    spec, given = settle(source.store, source.specs, strategy.rule, strategy.parameters)
    parameters, solved = valid_parameters(strategy.rule, given), None
    if strategy.target_length is not None:
        parts = _Parts(source, spec)
        answer = solve_in_parts(strategy.rule, parts, strategy.target_length, max_length, POINTS, **given)
        parameters, solved = answer.parameters, (answer.parameter, answer.curve_parameter)
    known = np.concatenate([piece.inputs_with(spec)[1] for piece in source.pieces()])
    return CutCorpus(source, strategy, parameters, max_length, known, spec, solved)


@dataclass(frozen=True)
class _Parts:
    """The tokens of the rows that have what a rule needs, piece by piece, as often as they are asked for."""

    source: StoredRows
    spec: FeatureSpec | None

    def __iter__(self) -> Iterator[SegmentInputs]:
        return (piece.inputs_with(self.spec)[0] for piece in self.source.pieces())


def report(
    source: StoredRows, strategies: Sequence[Candidate], max_length: int = MAX_LENGTH, curves: bool = True
) -> CorpusReport:
    """Judge strategies on a corpus.

    Args:
        source: a store, with its extra features.
        strategies: at least one; two are compared on the rows where both are known.
        max_length: M.
        curves: whether to compute the curve of each solved strategy, with intervals.
    """
    check_max_length(max_length)
    if not strategies:
        raise MicroStepError("there is no strategy to judge; name one with --strategy")
    cuts = [cut_corpus(source, strategy, max_length) for strategy in strategies]
    units = Units.of(source.document)
    found = count_in_pieces(lambda: (_marked(piece, cuts, units) for piece in source.pieces()))
    return CorpusReport(
        source,
        max_length,
        tuple(_strategy(source, cut, units, curves) for cut in cuts),
        pairs(found, units),
        pairs(found.of(len(cuts)), units),
        units,
    )


def _marked(piece: CorpusPiece, cuts: Sequence[CutCorpus], units: Units) -> Marked:
    """The boundaries of the strategies, and last those of the words, outside prompts."""
    counted, offsets = counted_positions(piece)
    word_start = piece.inputs.word_start
    words = np.ones(len(counted), dtype=bool) if word_start is None else word_start
    known = np.stack([*(cut.known[piece.rows] for cut in cuts), np.ones(len(offsets) - 1, dtype=bool)])
    starts = np.stack([*(cut.starts_in(piece) for cut in cuts), words])[:, counted]
    return Marked(starts, offsets, known, units.part(piece.rows), piece.inputs.forced[counted])


def counted_positions(piece: CorpusPiece) -> tuple[Bools, NDArray[np.int64]]:
    """[N] whether a token is outside the prompt, and [R + 1] the offsets of the rows among these tokens."""
    offsets, prompt = piece.offsets, piece.inputs.prompt
    counted = np.ones(int(offsets[-1]), dtype=bool) if prompt is None else ~prompt
    return counted, np.concatenate([[0], np.cumsum(counted)])[offsets].astype(np.int64)


def _strategy(source: StoredRows, cut: CutCorpus, units: Units, curves: bool) -> StrategyReport:
    values = cut.solved[1] if curves and cut.solved is not None else np.zeros(0)
    own = np.zeros((units.count, 3 + len(values)))  # tokens, segments, segments of one token; segments at each value
    tokens, histogram = np.zeros(len(cut.known), dtype=np.int64), np.zeros(1, dtype=np.int64)
    for piece in source.pieces():
        known = cut.known[piece.rows]
        counted, offsets = counted_positions(piece)
        tokens[piece.rows] = np.diff(offsets) * known
        starts, row = cut.starts_in(piece), row_of(piece.offsets)
        first = np.flatnonzero(starts & counted)  # of segments
        ends = np.union1d(np.flatnonzero(starts), piece.offsets)  # of segments: the next start, or the end of the row
        lengths = ends[np.searchsorted(ends, first, side="right")] - first if len(first) else first
        marks = [first, first[lengths == 1]]
        if cut.solved is not None:
            marks += [np.flatnonzero(cut.starts_in(piece, _at(cut, value)) & counted) for value in values.tolist()]
        per_row = [tokens[piece.rows], *(np.bincount(row[at], minlength=len(known)) for at in marks)]
        own += units.part(piece.rows).sums(np.stack(per_row, axis=1))
        histogram = _added(histogram, np.bincount(lengths, minlength=1))
    sums = units.left_out(own)
    mean = units.estimates(quotient(sums[:, 0], sums[:, 1]), own[:, 1], (1.0, np.inf))
    single = units.estimates(quotient(sums[:, 2], sums[:, 1]), own[:, 1], SHARE)
    curve = None
    if curves and cut.solved is not None:
        at_values = units.estimates(quotient(sums[:, :1], sums[:, 3:]), own[:, 3:], (1.0, np.inf))
        curve = LengthCurve(*cut.solved, at_values)
    return StrategyReport(
        cut,
        int(tokens.sum()),
        int(histogram.sum()),
        len(np.unique(source.document[tokens > 0])),
        mean.at(),
        single.at(),
        histogram,
        curve,
    )


def _at(cut: CutCorpus, value: float) -> dict[str, float]:
    """The parameters of a strategy with another value of the solved one."""
    name = cut.solved[0] if cut.solved is not None else ""
    return {**cut.parameters, name: int(value) if RULES[cut.strategy.rule].parameter(name).integer else value}


def _added(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum of counts by length, of which one may know longer ones."""
    total = np.zeros(max(len(a), len(b)), dtype=np.int64)
    total[: len(a)] += a
    total[: len(b)] += b
    return total
