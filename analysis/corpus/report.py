"""Judges strategies on a corpus from its store: lengths, agreement with words and each other, with intervals.

All numbers come from counts per document, so intervals over documents need no second count. For a single document they
equal those of analysis/segmentation/metrics.py. transfer.py compares two stores by characters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis.corpus.counts import Pairs, count, pairs
from analysis.intervals import SHARE, Estimate, Estimates, Floats, Units, quotient
from data.corpus.rule_inputs import CorpusSource, CorpusTokens, row_of
from model.errors import MicroStepError
from model.segmentation.segment import MAX_LENGTH, RULES, check_max_length, find_rule, segment, starts_of
from model.segmentation.solver import POINTS, solve
from model.short_repr import ShortRepr

Bools = NDArray[np.bool_]


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

    strategy: Candidate
    parameters: dict[str, float]  # all parameters of the rule, including the solved one
    starts: Bools  # [N] starts of segments; false in rows where they are unknown
    known: Bools  # [R] whether a row has what the rule needs
    solved: tuple[str, Floats] | None = None  # the solved parameter, and [C] the values of its curve
    tokens: CorpusTokens | None = None  # of the known rows

    def __post_init__(self) -> None:
        if self.starts.ndim != 1 or self.known.ndim != 1:
            raise ValueError(f"starts must be [N] and known [R], got {self.starts.shape} and {self.known.shape}")

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

    source: CorpusSource
    max_length: int  # M
    strategies: tuple[StrategyReport, ...]  # [S]
    words: Pairs  # [S + 1, S + 1]; segmentation S are the words
    pairs: Pairs  # [S, S] without the words
    units: Units  # what the intervals are over

    @property
    def notes(self) -> tuple[str, ...]:
        gathered = tuple(each.spec.meaning for each in self.source.gathered if not each.spec.begin)
        return (*self.source.store.notes, *gathered, self.units.meaning)


def strategies_for(
    source: CorpusSource, rules: Sequence[str] = (), settings: Mapping[str, float] | None = None, target: float = 2.0
) -> list[Candidate]:
    """The strategies of a report. Each rule is solved for a mean length, unless its parameter is set.

    Args:
        source: the store of the corpus.
        rules: names; empty for every rule that the store can serve.
        settings: parameters, each set for every rule that has it.
        target: mean length, in tokens.
    """
    chosen, given = [find_rule(name) for name in rules or source.rules()], dict(settings or {})
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


def cut_corpus(source: CorpusSource, strategy: Candidate, max_length: int = MAX_LENGTH) -> CutCorpus:
    """Segment every row of a store that has what the rule needs."""
    tokens, given = source.ready(strategy.rule, strategy.parameters)
    solved = None
    if strategy.target_length is None:
        found = segment(strategy.rule, tokens.inputs, max_length, **given)
        parameters, starts = dict(found.parameters), found.starts
    else:
        answer = solve(strategy.rule, tokens.inputs, strategy.target_length, max_length, POINTS, **given)
        parameters, solved = answer.parameters, (answer.parameter, answer.curve_parameter)
        starts = starts_of(strategy.rule, tokens.inputs, parameters, max_length)
    every = source.tokens.rows.offsets
    known = np.zeros(len(every) - 1, dtype=bool)
    known[tokens.numbers] = True
    whole = np.zeros(int(every[-1]), dtype=bool)
    whole[known[row_of(every)]] = starts
    return CutCorpus(strategy, parameters, whole, known, solved, tokens)


def report(
    source: CorpusSource, strategies: Sequence[Candidate], max_length: int = MAX_LENGTH, curves: bool = True
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
    units = Units.of(source.tokens.rows.document)
    inputs = source.tokens.inputs
    counted, offsets = counted_positions(source)
    word_start = inputs.word_start
    words = np.ones(len(counted), dtype=bool) if word_start is None else word_start
    every_row = np.ones(len(offsets) - 1, dtype=bool)
    starts = np.stack([*(cut.starts for cut in cuts), words])[:, counted]
    known = np.stack([*(cut.known for cut in cuts), every_row])
    found = count(starts, offsets, known, units, inputs.forced[counted])
    return CorpusReport(
        source,
        max_length,
        tuple(_strategy(source, cut, units, counted, offsets, max_length, curves) for cut in cuts),
        pairs(found, units),
        pairs(found.of(len(cuts)), units),
        units,
    )


def counted_positions(source: CorpusSource) -> tuple[Bools, NDArray[np.int64]]:
    """[N] whether a token is outside the prompt, and [R + 1] the offsets of the rows among these tokens."""
    offsets, prompt = source.tokens.rows.offsets, source.tokens.inputs.prompt
    counted = np.ones(int(offsets[-1]), dtype=bool) if prompt is None else ~prompt
    return counted, np.concatenate([[0], np.cumsum(counted)])[offsets].astype(np.int64)


def _strategy(
    source: CorpusSource,
    cut: CutCorpus,
    units: Units,
    counted: Bools,
    offsets: NDArray[np.int64],
    max_length: int,
    curves: bool,
) -> StrategyReport:
    rows = len(cut.known)
    first = np.flatnonzero(cut.starts & counted)  # of segments
    ends = _ends(cut, source.tokens.rows.offsets)
    lengths = ends[np.searchsorted(ends, first, side="right")] - first if len(first) else np.zeros(0, dtype=np.int64)
    row = row_of(source.tokens.rows.offsets)[first]
    tokens = np.diff(offsets) * cut.known
    per_row = np.stack(
        [tokens, np.bincount(row, minlength=rows), np.bincount(row[lengths == 1], minlength=rows)], axis=1
    )
    own = units.sums(per_row)
    sums = units.left_out(own)
    mean = units.estimates(quotient(sums[:, 0], sums[:, 1]), own[:, 1], (1.0, np.inf))
    single = units.estimates(quotient(sums[:, 2], sums[:, 1]), own[:, 1], SHARE)
    return StrategyReport(
        cut,
        int(tokens.sum()),
        len(first),
        len(np.unique(source.tokens.rows.document[tokens > 0])),
        mean.at(),
        single.at(),
        np.bincount(lengths, minlength=1).astype(np.int64),
        _curve(source, cut, units, max_length, sums[:, 0]) if curves else None,
    )


def _ends(cut: CutCorpus, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The ends of segments, rising: the next start, or the end of the row."""
    return np.union1d(np.flatnonzero(cut.starts), offsets)


def _curve(source: CorpusSource, cut: CutCorpus, units: Units, max_length: int, tokens: Floats) -> LengthCurve | None:
    """The mean length at each value; `tokens` [1 + U]: of the known rows, and without each unit."""
    if cut.solved is None or cut.tokens is None:
        return None
    name, values = cut.solved
    here, integer = cut.tokens, RULES[cut.strategy.rule].parameter(name).integer
    row = here.numbers[row_of(here.rows.offsets)]
    counted = np.ones(len(row), dtype=bool) if here.inputs.prompt is None else ~here.inputs.prompt
    per_row = np.zeros((len(cut.known), len(values)))
    for i, value in enumerate(values.tolist()):
        changed = {**cut.parameters, name: int(value) if integer else value}
        starts = starts_of(cut.strategy.rule, here.inputs, changed, max_length) & counted
        per_row[:, i] = np.bincount(row[starts], minlength=len(cut.known))
    own = units.sums(per_row)
    lengths = quotient(tokens[:, None], units.left_out(own))
    return LengthCurve(name, values, units.estimates(lengths, own, (1.0, np.inf)))
