"""Sums the attributions of tokens over words, segments or lines; no model runs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.options import AttributionUnit
from model.arguments import check_choice
from model.errors import MicroStepError
from model.segmentation.segment import word_starts
from model.short_repr import ShortRepr
from model.text.encoding import EncodedText

ATTRIBUTION_UNITS: dict[AttributionUnit, str] = {
    "tokens": "each token",
    "words": "all tokens between white space",
    "segments": "the segments of the chosen strategy",
    "lines": "all tokens between line breaks",
}


@dataclass(frozen=True, eq=False, repr=False)
class Grouped(ShortRepr):
    """The tokens before the target as G units, with their values."""

    unit: AttributionUnit
    first: NDArray[np.int64]  # [G] the unit's first token
    last: NDArray[np.int64]  # [G] the unit's last token
    value: NDArray[np.float64]  # [G]; NaN if none of its tokens is attributed
    standard_error: NDArray[np.float64] | None  # [G]
    text: tuple[str, ...]  # [G]

    def __len__(self) -> int:
        return len(self.first)


def unit_starts(
    encoded: EncodedText, segments: NDArray[np.bool_] | None = None
) -> dict[AttributionUnit, NDArray[np.bool_]]:
    """[N] where the units of each kind start; segments only if given."""
    n = len(encoded)
    line = np.array([encoded.text.count("\n", 0, int(a)) for a in encoded.start], dtype=np.int64)
    starts_of: dict[AttributionUnit, NDArray[np.bool_]] = {
        "tokens": np.ones(n, dtype=bool),
        "words": word_starts(encoded.text, encoded.start, encoded.continuation),
        "lines": np.diff(line, prepend=-1) > 0,
    }
    if segments is not None:
        starts_of["segments"] = segments.copy()
    for starts in starts_of.values():
        starts[:1] = True
    return {unit: starts_of[unit] for unit in ATTRIBUTION_UNITS if unit in starts_of}


def offered(
    encoded: EncodedText, features: NDArray[np.int64], segments: NDArray[np.bool_] | None = None
) -> tuple[AttributionUnit, ...]:
    """The units that do not split a feature, since the parts of a feature have no values of their own.

    Args:
        encoded: the tokens.
        features: [t] the feature of each token before the target, numbered in order.
        segments: [N] where segments start, if known.
    """
    opens = np.diff(features, prepend=-1) != 0
    starts_of = unit_starts(encoded, segments)
    return tuple(unit for unit, starts in starts_of.items() if not (starts[: len(features)] & ~opens).any())


def grouped(
    encoded: EncodedText,
    values: NDArray[np.float64],
    unit: AttributionUnit,
    batches: NDArray[np.float64] | None = None,
    segments: NDArray[np.bool_] | None = None,
) -> Grouped:
    """Sum the values of tokens by unit; the sum over all units stays the same.

    Args:
        encoded: the tokens.
        values: [t] of the tokens before the target; NaN if a token is not attributed.
        unit: see `ATTRIBUTION_UNITS`.
        batches: [B, t] independent estimates of the values, for standard errors.
        segments: [N] where segments start, for that unit.
    """
    check_choice("unit", unit, ATTRIBUTION_UNITS)
    starts_of = unit_starts(encoded, segments)
    if unit not in starts_of:
        raise MicroStepError("there are no segments: choose a strategy")
    t = len(values)
    first = np.flatnonzero(starts_of[unit][:t])
    last = np.append(first[1:], t) - 1

    def total(row: NDArray[np.float64]) -> NDArray[np.float64]:
        known = ~np.isnan(row)
        sums = np.add.reduceat(np.where(known, row, 0.0), first)
        return np.where(np.add.reduceat(known.astype(int), first) > 0, sums, np.nan)

    error = None
    if batches is not None:
        error = np.stack([total(row) for row in batches]).std(axis=0, ddof=1) / np.sqrt(len(batches))
    text = tuple(
        encoded.text[int(encoded.start[a]) : int(encoded.end[b])]
        for a, b in zip(first.tolist(), last.tolist(), strict=True)
    )
    return Grouped(unit, first, last, total(values), error, text)
