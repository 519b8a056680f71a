"""Judge strategies on a whole corpus, from its store alone: lengths, words, each other, with intervals over documents.

Every figure comes from counts per document, so that the intervals cost no second count. Over one document, without
intervals, the figures are those of `segmentation_report.statistics` and `agreement`. Two stores are compared by
characters in transfer.py.
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
    """A rule with parameters, or with one of them left open for a mean length."""

    rule: str
    parameters: Mapping[str, float] = field(default_factory=dict)
    target_length: float | None = None  # tokens a segment; None: nothing is solved for


@dataclass(frozen=True)
class LengthCurve:
    """From the parameter that is solved for to the mean length."""

    parameter: str
    value: Floats  # [C] rising
    mean_length: Estimates  # [C] tokens


@dataclass(frozen=True, repr=False)
class CutCorpus(ShortRepr):
    """Where a strategy cuts the N tokens of R rows of a store."""

    strategy: Candidate
    parameters: dict[str, float]  # all of the rule's, the solved one included
    starts: Bools  # [N]; false in rows where it is not known
    known: Bools  # [R] rows that hold what the rule needs
    solved: tuple[str, Floats] | None = None  # the parameter that was solved for, and [C] the curve's values
    tokens: CorpusTokens | None = None  # of the known rows

    def __post_init__(self) -> None:
        if self.starts.ndim != 1 or self.known.ndim != 1:
            raise ValueError(f"starts must be [N] and known [R], got {self.starts.shape} and {self.known.shape}")

    @property
    def label(self) -> str:
        """Its rule, and what tells it from others of the same rule."""
        set_here = [f"{name}={value:g}" for name, value in self.strategy.parameters.items()]
        return " ".join([self.strategy.rule, *set_here])


@dataclass(frozen=True, repr=False)
class StrategyReport(ShortRepr):
    """What a strategy does to a corpus. Prompts are left out, as everywhere."""

    cut: CutCorpus
    tokens: int
    segments: int
    documents: int  # with tokens in rows where the strategy is known
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
    words: Pairs  # [S + 1, S + 1] with the words as segmentation S
    pairs: Pairs  # [S, S] of the strategies alone
    units: Units  # what the intervals are over

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said wherever these figures are shown."""
        gathered = tuple(each.spec.meaning for each in self.source.gathered if not each.spec.begin)
        return (*self.source.store.notes, *gathered, self.units.meaning)


def strategies_for(
    source: CorpusSource, rules: Sequence[str] = (), settings: Mapping[str, float] | None = None, target: float = 2.0
) -> list[Candidate]:
    """The strategies of a report: each rule solved for a mean length, unless what is solved for is set.

    Args:
        source: of the corpus.
        rules: names; empty: every rule that the source has all for.
        settings: parameters, each for every rule that has it.
        target: mean length, tokens.

    Raises:
        MicroStepError: unknown rule, or a parameter that none of the rules has.
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
    """Apply a strategy to every row of a store that holds what its rule needs.

    Raises:
        MicroStepError: as `solve` and `segment`, or what the rule needs was not gathered.
    """
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
        source: a store, and what was gathered beside it.
        strategies: at least one; a pair is compared on the rows where both are known.
        max_length: M.
        curves: also give each solved strategy's curve, with an interval at every point.

    Raises:
        MicroStepError: as `cut_corpus`.
    """
    check_max_length(max_length)
    if not strategies:
        raise MicroStepError("there is no strategy to report on; name one with --strategy")
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
    """[N] the tokens that are no prompt, and [R + 1] the offsets of the rows among them."""
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
    """Where segments end, rising: the next start, or the end of the row."""
    return np.union1d(np.flatnonzero(cut.starts), offsets)


def _curve(source: CorpusSource, cut: CutCorpus, units: Units, max_length: int, tokens: Floats) -> LengthCurve | None:
    """The mean length at each value; tokens: [1 + U] of the known rows, and without each unit."""
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
