"""Tokens that can be cut, the same tokens cut by a strategy, and why each segment starts where it does.

A side is one model's reading of one text, or of all documents of a store; cuts of two sides are compared by the
characters of the text that both read.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from analysis.intervals import Estimate, Units, quotient, ratio
from analysis.segmentation.metrics import BoundaryAgreement, agreement, row_offsets
from analysis.segmentation.single import FeatureValues, scored_inputs
from analysis.segmentation.strategy import Segmenter, Strategy, labels
from analysis.uncertainty.result import ScoredText
from model.errors import MicroStepError
from model.hub.loading import ModelInfo
from model.segmentation.boundaries import Pointwise, Running
from model.segmentation.features import Feature, FeatureOptions
from model.segmentation.segment import Segmentation, SegmentInputs, plan_of
from model.short_repr import ShortRepr

Bools = NDArray[np.bool_]
Made = TypeVar("Made")
REASONS = ("joins", "rule", "cap", "first", "unscored", "after unscored", "prompt", "after prompt")


@dataclass(frozen=True, eq=False, repr=False)
class TokenizedText(ShortRepr):
    """N tokens of one model. Compared by identity: what is computed from a side is kept under it."""

    key: str  # A, B
    facts: ModelInfo
    text: str  # what the tokens stand on; empty for the documents of a store, taken together
    start: NDArray[np.int32]  # [N] characters [start, end) of `text`; -1 where they have no place in it
    end: NDArray[np.int32]  # [N]
    continuation: Bools  # [N] the token starts inside a character
    display: tuple[str, ...]  # [N], or empty where `text` is
    role: NDArray[np.str_]  # [N], or empty where `text` is
    inputs: SegmentInputs  # [N] what all rules can look at
    notes: tuple[str, ...] = ()
    read: str = ""  # the text that the model read, its chat template included; empty for a store
    extras: Mapping[Feature, FeatureValues] = field(default_factory=dict)
    document: NDArray[np.int32] | None = None  # [R] of a store: the number of the document that each row is of

    def __post_init__(self) -> None:
        n = len(self.inputs)
        shapes = {"start": len(self.start), "end": len(self.end), "continuation": len(self.continuation)}
        if set(shapes.values()) != {n}:
            raise ValueError(f"a side of {n} tokens needs arrays [{n}], got {shapes}")

    def __len__(self) -> int:
        return len(self.start)

    @classmethod
    def of(
        cls,
        key: str,
        text: str,
        scored: ScoredText,
        how: FeatureOptions,
        extras: Mapping[Feature, FeatureValues] | None = None,
    ) -> TokenizedText:
        """One model's reading of one text.

        Args:
            key: A or B.
            text: of the document.
            scored: its scores.
            how: whether the prompt is kept apart.
            extras: what else was gathered.

        Raises:
            MicroStepError: an extra is of another number of tokens.
        """
        encoded, extras = scored.encoded, extras or {}
        for found in extras.values():
            if found.tokens != len(encoded):
                raise MicroStepError(
                    f"the free memory changed between two runs: {len(encoded):,} tokens were scored, but"
                    f" {found.tokens:,} read again; shorten the text"
                )
        inputs, notes = scored_inputs(scored, how)
        notes = (*notes, *(found.note for found in extras.values() if found.note))
        return cls(
            key=key,
            facts=scored.facts,
            text=text,
            start=encoded.source_start,
            end=encoded.source_end,
            continuation=encoded.continuation,
            display=tuple(encoded.display),
            role=encoded.role,
            inputs=inputs,
            notes=notes,
            read=encoded.text,
            extras=extras,
        )

    def inputs_for(self, segmenter: Segmenter) -> SegmentInputs:
        """What a strategy looks at.

        Raises:
            MicroStepError: it needs what was not gathered.
        """
        feature = segmenter.feature
        if feature is None:
            return self.inputs
        if feature not in self.extras:
            raise MicroStepError(f"{segmenter.strategy.rule.title} needs a further run of model {self.key}")
        return replace(self.inputs, **self.extras[feature].values)

    @property
    def counted(self) -> Bools:
        """[N] tokens outside the prompt: those that lengths are taken of."""
        prompt = self.inputs.prompt
        return np.ones(len(self), dtype=bool) if prompt is None else ~prompt


@dataclass(frozen=True, eq=False, repr=False)
class SegmentedText(ShortRepr):
    """A side, cut by a strategy. Compared by identity."""

    name: str  # "A entropy": unlike that of any other cut on the page
    side: TokenizedText
    strategy: Strategy
    inputs: SegmentInputs  # [N] what the strategy looked at
    found: Segmentation  # of N tokens
    number: int = 0  # of the strategy, from 0: its colour


class MemoCache:
    """Values under their keys, as long as they are asked for: `turn` lets go what was not since the turn before."""

    def __init__(self) -> None:
        self._values: dict[Hashable, object] = {}
        self._asked: set[Hashable] = set()

    def turn(self) -> None:
        """A new turn begins."""
        self._values = {key: value for key, value in self._values.items() if key in self._asked}
        self._asked = set()

    def get(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The value under a key; made where there is none."""
        self._asked.add(key)
        if key not in self._values:
            self._values[key] = make()
        return cast("Made", self._values[key])


def cuts(sides: Sequence[TokenizedText], segmenters: Sequence[Segmenter], kept: MemoCache) -> tuple[SegmentedText, ...]:
    """Every strategy on every side; a side that lacks what a strategy needs is left out."""
    found = []
    names = labels([segmenter.strategy for segmenter in segmenters])
    for number, (segmenter, label) in enumerate(zip(segmenters, names, strict=True)):
        for side in sides:
            if segmenter.feature is not None and segmenter.feature not in side.extras:
                continue
            name = f"{side.key} {label}" if len(sides) > 1 else label
            make = partial(_segmented, name, side, segmenter, number)
            found.append(kept.get(("cut", side, segmenter, name, number), make))
    return tuple(found)


def _segmented(name: str, side: TokenizedText, segmenter: Segmenter, number: int) -> SegmentedText:
    inputs = side.inputs_for(segmenter)
    return SegmentedText(name, side, segmenter.strategy, inputs, segmenter.segment(inputs), number)


def mean_length(cut: SegmentedText) -> Estimate:
    """Tokens per segment, prompt left out, with its 95% interval: over segments; of a store, over its documents."""
    counted = cut.side.counted
    starts = cut.found.starts & counted
    if cut.side.document is None:
        lengths = cut.found.lengths[counted[cut.found.starts]].astype(np.float64)
        return ratio(lengths, np.ones(len(lengths)))
    rows, units = np.cumsum(cut.side.inputs.row_starts) - 1, Units.of(cut.side.document)
    own = units.sums(np.stack([np.bincount(rows, counted), np.bincount(rows, starts)], axis=1))
    sums = units.left_out(own)
    return units.estimates(quotient(sums[:, 0], sums[:, 1]), own[:, 1], (1.0, np.inf)).at()


def agree(reference: SegmentedText, hypothesis: SegmentedText) -> tuple[BoundaryAgreement, str]:
    """How the boundaries of two cuts meet, outside the prompt; and whether between tokens or characters.

    Boundaries that every rule has are not counted, and no window crosses from one document of a store to the next.
    """
    a, b = reference.side, hypothesis.side
    starts = reference.found.starts, hypothesis.found.starts
    if a is b or (np.array_equal(a.start, b.start) and np.array_equal(a.end, b.end)):
        both, forced = a.counted & b.counted, a.inputs.forced | b.inputs.forced
        offsets = row_offsets(a.inputs, both)
        return agreement(starts[0][both], starts[1][both], offsets, forced[both]), "tokens"
    last = min(int(side.end.max(initial=0)) for side in (a, b))
    forced = _characters(a, a.inputs.forced, last) | _characters(b, b.inputs.forced, last)
    both = ~(_covered(a, ~a.counted, last) | _covered(b, ~b.counted, last))
    places = [_characters(side, each, last)[both] for side, each in zip((a, b), starts, strict=True)]
    return agreement(places[0], places[1], forced=forced[both]), "characters"


def _characters(side: TokenizedText, tokens: Bools, n: int) -> Bools:
    """[n] characters at which one of some tokens [N] starts, inside none."""
    found = np.zeros(n, dtype=bool)
    at = side.start[tokens & ~side.continuation & (side.start >= 0)]
    found[at[at < n]] = True
    return found


def _covered(side: TokenizedText, tokens: Bools, n: int) -> Bools:
    """[n] characters that one of some tokens [N] holds."""
    there = tokens & (side.start >= 0)
    change = np.zeros(n + 1, dtype=np.int64)
    np.add.at(change, np.minimum(side.start[there], n), 1)
    np.add.at(change, np.minimum(side.end[there], n), -1)
    return np.cumsum(change[:-1]) > 0


def reasons(cut: SegmentedText) -> NDArray[np.int8]:
    """[N] why each token starts a segment, or that it joins one: places in REASONS."""
    inputs, found, m = cut.inputs, cut.found, cut.found.max_length
    code = dict(zip(REASONS, range(len(REASONS)), strict=True))
    reason = np.where(found.starts, code["rule"], code["joins"]).astype(np.int8)
    lengths = np.repeat(found.lengths, found.lengths)  # of each token's segment
    full = np.zeros(len(reason), dtype=bool)
    full[1:] = found.starts[1:] & (lengths[:-1] == m)
    reason[full & _would_join(cut)] = code["cap"]
    after_missing = np.zeros(len(reason), dtype=bool)
    after_missing[1:] = inputs.missing[:-1]
    forced = inputs.forced
    reason[forced & after_missing] = code["after unscored"]
    if inputs.prompt is not None:
        after = np.zeros(len(reason), dtype=bool)
        after[1:] = inputs.prompt[:-1]
        reason[after] = code["after prompt"]
    reason[inputs.missing] = code["unscored"]
    reason[inputs.row_starts] = code["first"]
    if inputs.prompt is not None:
        reason[inputs.prompt] = code["prompt"]
    return reason


def _would_join(cut: SegmentedText) -> Bools:
    """[N] tokens that the rule itself would have joined to the segment before."""
    plan = plan_of(cut.strategy.name, cut.inputs, cut.found.parameters, cut.found.max_length)
    if isinstance(plan, Pointwise):
        return plan.joins
    if isinstance(plan, Running):
        joins = plan.joins
        asked = replace(plan, value=lambda before, new: joins(before, new).astype(np.float64))
        found: Bools = asked.compared(cut.found.starts) == 1
        return found
    values = plan.compared(cut.found.starts)
    return np.isnan(values) | plan.joins(values)
