"""Judge a segmentation: its lengths, how it agrees with another or with words, and how stable it is.

Boundaries are compared between the tokens of one tokenizer, or between characters where two tokenizers cut the same
text differently. The first token of a text starts a segment under every rule, so that it is never counted as agreement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.encoding import EncodedText
from model.segmentation import MAX_LENGTH, RULES, Segmentation, SegmentInputs, segment, starts_of

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """How the boundaries of a hypothesis meet those of a reference."""

    precision: float  # share of the hypothesis' boundaries that the reference has; NaN where it has none
    recall: float  # share of the reference's boundaries that the hypothesis has; NaN where there are none
    f1: float  # 2 x shared / (both numbers of boundaries); 1 where neither has any
    window_diff: float  # share of windows with different numbers of boundaries; NaN for a text within one window
    pk: float  # share of windows whose ends are in one segment for one of the two only
    k: int  # reach of a window: half the mean reference segment, at least 1


@dataclass(frozen=True)
class Statistics:
    """Lengths of a segmentation, in tokens, prompt left out."""

    tokens: int
    segments: int
    mean_length: float  # tokens / segments
    singletons: float  # share of segments of one token
    histogram: NDArray[np.int64]  # [L + 1] number of segments of each length, from 0 to the longest
    words: Agreement | None  # with word starts as the reference

    def __post_init__(self) -> None:
        if self.histogram.ndim != 1 or self.histogram.sum() != self.segments:
            raise ValueError(f"histogram must be [L + 1] over {self.segments} segments, got {self.histogram}")


@dataclass(frozen=True)
class Stability:
    """Which of N tokens change sides, between starting a segment and joining one."""

    by_scores: Bools  # [N] under the other scores
    by_parameter: Bools  # [N] when the parameter is a little smaller or larger
    distance: NDArray[np.float32]  # [N] of the compared value from the bar, in the rule's unit; NaN where none
    near: Bools  # [N] compared values that the same change of the bar passes over
    change: float  # relative, of the parameter; a whole number changes by 1

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in ("by_scores", "by_parameter", "distance", "near")}
        if set(shapes.values()) != {(len(self.by_scores),)}:
            raise ValueError(f"Stability needs arrays of one shape [N], got {shapes}")


def statistics(found: Segmentation, inputs: SegmentInputs) -> Statistics:
    """Lengths, and agreement with words where the inputs know them.

    Args:
        found: a segmentation of N tokens.
        inputs: the N tokens that were segmented.
    """
    counted = np.ones(len(found), dtype=bool) if inputs.prompt is None else ~inputs.prompt
    lengths = found.lengths[counted[found.starts]]
    segments, tokens = len(lengths), int(lengths.sum())
    words = inputs.word_start
    return Statistics(
        tokens,
        segments,
        tokens / segments if segments else float("nan"),
        float((lengths == 1).mean()) if segments else float("nan"),
        np.bincount(lengths, minlength=1).astype(np.int64),
        None if words is None else agreement(words[counted], found.starts[counted]),
    )


def agreement(reference: Bools, hypothesis: Bools, k: int | None = None) -> Agreement:
    """Compare two segmentations of the same N positions.

    WindowDiff: Pevzner and Hearst 2002, https://aclanthology.org/J02-1002. Pk: Beeferman, Berger and Lafferty 1999.

    Args:
        reference: [N] positions that start a segment.
        hypothesis: [N].
        k: reach of a window; half the reference's mean segment, rounded, if None.
    """
    if reference.shape != hypothesis.shape:
        raise ValueError(f"both must be [N], got {reference.shape} and {hypothesis.shape}")
    n, a, b = len(reference), reference[1:], hypothesis[1:]
    shared, in_a, in_b = int((a & b).sum()), int(a.sum()), int(b.sum())
    reach = k if k is not None else max(1, round(n / (in_a + 1) / 2))
    # boundaries between positions i and i + k, for i = 0 .. n - k - 1
    count_a, count_b = (np.concatenate([[0], np.cumsum(x, dtype=np.int64)]) for x in (a, b))
    within_a, within_b = count_a[reach:] - count_a[:-reach], count_b[reach:] - count_b[:-reach]
    windows = n > reach
    return Agreement(
        precision=shared / in_b if in_b else float("nan"),
        recall=shared / in_a if in_a else float("nan"),
        f1=2 * shared / (in_a + in_b) if in_a + in_b else 1.0,
        window_diff=float((within_a != within_b).mean()) if windows else float("nan"),
        pk=float(((within_a == 0) != (within_b == 0)).mean()) if windows else float("nan"),
        k=reach,
    )


def agreement_of_texts(
    reference: EncodedText, reference_starts: Bools, hypothesis: EncodedText, hypothesis_starts: Bools
) -> Agreement:
    """Compare two segmentations of one document by its characters, up to where both models read it.

    Args:
        reference: the tokens of one model, [N_a].
        reference_starts: [N_a] tokens that start a segment.
        hypothesis: the tokens of another, [N_b].
        hypothesis_starts: [N_b].
    """
    n = min(int(text.source_end.max(initial=0)) for text in (reference, hypothesis))
    return agreement(
        character_starts(reference, reference_starts, n), character_starts(hypothesis, hypothesis_starts, n)
    )


def character_starts(encoded: EncodedText, starts: Bools, n: int) -> Bools:
    """[n] characters of the document's own text at which a segment starts.

    The template's tokens have no place in it, and neither has a segment that starts inside a character.
    """
    at = encoded.source_start[starts & ~encoded.continuation & (encoded.source_start >= 0)]
    found = np.zeros(n, dtype=bool)
    found[at[at < n]] = True
    return found


def stability(
    rule: str,
    inputs: SegmentInputs,
    other: SegmentInputs | None = None,
    max_length: int = MAX_LENGTH,
    change: float = 0.01,
    **parameters: float,
) -> Stability:
    """What a rule's boundaries hang on.

    Args:
        rule: a name in `RULES`.
        inputs: N tokens.
        other: the same N tokens with scores of another precision, or of another model.
        max_length: M.
        change: of the parameter that sets the mean length, up and down, as a share of it.
        parameters: of the rule.

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
        by = 1.0 if moved.integer else change * abs(value)
        for changed in (max(moved.low, value - by), min(moved.high, value + by)):
            there = int(changed) if moved.integer else changed
            by_parameter |= found.starts != starts_of(rule, inputs, {**found.parameters, name: there}, max_length)
    bar = RULES[rule].bar(found.parameters)
    if bar is None:
        distance = np.full(len(found), np.nan, dtype=np.float32)
    else:
        distance = np.abs(found.value - bar).astype(np.float32)
    return Stability(by_scores, by_parameter, distance, distance <= change * abs(bar or 0.0), change)
