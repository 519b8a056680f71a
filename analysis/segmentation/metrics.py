"""Judges a segmentation: its lengths, its agreement with another or with words, and its stability.

Boundaries are compared by tokens with one tokenizer, and by characters with two. Starts that every rule has (the first
token of a text, the first with a score, and the prompt of a chat) are no decision of a strategy, so they count neither
as agreement nor as disagreement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.corpus.counts import count
from analysis.intervals import Units
from model.segmentation.segment import MAX_LENGTH, RULES, Segmentation, SegmentInputs, segment, starts_of

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class BoundaryAgreement:
    """The agreement of the boundaries of a hypothesis with those of a reference."""

    precision: float  # share of the hypothesis' boundaries that the reference has; NaN without any
    recall: float  # share of the reference's boundaries that the hypothesis has; NaN without any
    f1: float  # 2 x shared / (sum of both numbers of boundaries); 1 if neither has any
    window_diff: float  # share of windows with different numbers of boundaries; NaN if the text fits one window
    pk: float  # share of windows whose ends are in one segment in only one of the two
    k: int  # length of a window: half the mean reference segment, at least 1


@dataclass(frozen=True)
class Statistics:
    """The segment lengths of a segmentation, in tokens, without the prompt."""

    tokens: int
    segments: int
    mean_length: float  # tokens / segments
    singletons: float  # share of segments of one token
    histogram: NDArray[np.int64]  # [L + 1] number of segments of each length, from 0 to the longest
    words: BoundaryAgreement | None  # with word starts as the reference

    def __post_init__(self) -> None:
        if self.histogram.ndim != 1 or self.histogram.sum() != self.segments:
            raise ValueError(f"histogram must be [L + 1] over {self.segments} segments, got {self.histogram}")


@dataclass(frozen=True)
class Stability:
    """Which of N tokens change between starting a segment and joining one."""

    by_scores: Bools  # [N] with the other scores
    by_parameter: Bools  # [N] with a slightly smaller or larger parameter
    distance: NDArray[
        np.float32
    ]  # [N] distance of the compared value from the threshold, in the rule's unit; NaN if none
    near: Bools  # [N] whether that change of the threshold crosses the compared value
    change: float  # of the parameter: a share of it (from 0, the number itself); 1 for whole numbers

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("by_scores", "by_parameter", "distance", "near")}
        if set(shapes.values()) != {(len(self.by_scores),)}:
            raise ValueError(f"Stability needs arrays of one shape [N], got {shapes}")


def statistics(found: Segmentation, inputs: SegmentInputs) -> Statistics:
    """Lengths, and agreement with words if the inputs have them. Each row counts separately.

    Args:
        found: a segmentation of N tokens.
        inputs: the N tokens that were segmented.
    """
    counted = np.ones(len(found), dtype=bool) if inputs.prompt is None else ~inputs.prompt
    lengths = found.lengths[counted[found.starts]]
    segments, tokens = len(lengths), int(lengths.sum())
    words, offsets = inputs.word_start, row_offsets(inputs, counted)
    return Statistics(
        tokens,
        segments,
        tokens / segments if segments else float("nan"),
        float((lengths == 1).mean()) if segments else float("nan"),
        np.bincount(lengths, minlength=1).astype(np.int64),
        None if words is None else agreement(words[counted], found.starts[counted], offsets, inputs.forced[counted]),
    )


def row_offsets(inputs: SegmentInputs, counted: Bools) -> NDArray[np.int64]:
    """[R + 1] the offsets of rows among the counted tokens [N]."""
    ends = np.append(np.flatnonzero(inputs.row_starts), len(counted))
    found: NDArray[np.int64] = np.concatenate([[0], np.cumsum(counted)])[ends].astype(np.int64)
    return found


def agreement(
    reference: Bools,
    hypothesis: Bools,
    offsets: NDArray[np.int64] | None = None,
    forced: Bools | None = None,
    k: int | None = None,
) -> BoundaryAgreement:
    """Compare two segmentations of the same N positions.

    WindowDiff: Pevzner and Hearst 2002, https://aclanthology.org/J02-1002. Pk: Beeferman, Berger and Lafferty 1999.

    Args:
        reference: [N] positions that start a segment.
        hypothesis: [N] positions that start a segment.
        offsets: [R + 1] rows of the positions, which no window crosses; one row if None.
        forced: [N] positions that start a segment under every rule, besides the first of each row; they do not count.
        k: length of a window; half the reference's mean segment, rounded, if None.
    """
    if reference.shape != hypothesis.shape:
        raise ValueError(f"both must be [N], got {reference.shape} and {hypothesis.shape}")
    offsets = np.array([0, len(reference)]) if offsets is None else offsets
    rows = len(offsets) - 1
    units = Units(np.zeros(rows, dtype=np.int64), 1, "texts")
    found = count(np.stack([reference, hypothesis]), offsets, np.ones((2, rows), dtype=bool), units, forced, k)
    shared, in_a, in_b = (float(x) for x in (found.shared[0, 0, 1], found.own[0, 0, 1], found.own[0, 1, 0]))
    windows = float(found.windows[0, 0, 1])
    return BoundaryAgreement(
        precision=shared / in_b if in_b else float("nan"),
        recall=shared / in_a if in_a else float("nan"),
        f1=2 * shared / (in_a + in_b) if in_a + in_b else 1.0,
        window_diff=float(found.differ[0, 0, 1]) / windows if windows else float("nan"),
        pk=float(found.split[0, 0, 1]) / windows if windows else float("nan"),
        k=int(found.reach[0, 1]),
    )


def stability(
    rule: str,
    inputs: SegmentInputs,
    other: SegmentInputs | None = None,
    max_length: int = MAX_LENGTH,
    change: float = 0.01,
    **parameters: float,
) -> Stability:
    """Which boundaries of a rule change with other scores, or with a small change of its parameter.

    Args:
        rule: a name in `RULES`.
        inputs: N tokens.
        other: the same N tokens with scores of another precision, or of another model.
        max_length: M.
        change: of the parameter that sets the mean length, up and down, as a share of it; from 0 by this number.
        parameters: the rule's parameters.

    Raises:
        MicroStepError: as `segment`.
    """
    found = segment(rule, inputs, max_length, **parameters)
    if other is not None and len(other) != len(inputs):
        raise ValueError(f"the scores that are compared must be of the same tokens, got {len(inputs)}, {len(other)}")
    by_scores = np.zeros(len(found), dtype=bool)
    if other is not None:
        by_scores = found.starts != starts_of(rule, other, found.parameters, max_length)
    by_parameter = np.zeros(len(found), dtype=bool)
    name = RULES[rule].solves
    if name is not None:
        moved, value = RULES[rule].parameter(name), found.parameters[name]
        by = 1.0 if moved.integer else change * (abs(value) or 1.0)
        for changed in (max(moved.low, value - by), min(moved.high, value + by)):
            there = int(changed) if moved.integer else changed
            by_parameter |= found.starts != starts_of(rule, inputs, {**found.parameters, name: there}, max_length)
    bar = RULES[rule].bar(found.parameters)
    if bar is None:
        distance = np.full(len(found), np.nan, dtype=np.float32)
    else:
        distance = np.abs(found.value - bar).astype(np.float32)
    return Stability(by_scores, by_parameter, distance, distance <= change * (abs(bar or 0.0) or 1.0), change)
