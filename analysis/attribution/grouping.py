"""From attributions of tokens to those of words, segments or lines: sums, without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.attribution.targets import check_choice
from model.errors import MicroStepError
from model.segmentation.segment import word_starts
from model.short_repr import ShortRepr
from model.text.encoding import EncodedText

AttributionUnit = Literal["tokens", "words", "segments", "lines"]
ATTRIBUTION_UNITS: dict[AttributionUnit, str] = {
    "tokens": "each token",
    "words": "tokens from one white space to the next",
    "segments": "the segments of the chosen strategy",
    "lines": "tokens from one line break to the next",
}


@dataclass(frozen=True, eq=False, repr=False)
class Grouped(ShortRepr):
    """G units of the tokens before the target."""

    unit: AttributionUnit
    first: NDArray[np.int64]  # [G] the unit's first token
    last: NDArray[np.int64]  # [G] its last one
    value: NDArray[np.float64]  # [G] NaN where none of its tokens is attributed
    standard_error: NDArray[np.float64] | None  # [G]
    text: tuple[str, ...]  # [G]

    def __len__(self) -> int:
        return len(self.first)


def unit_starts(
    encoded: EncodedText, segments: NDArray[np.bool_] | None = None
) -> dict[AttributionUnit, NDArray[np.bool_]]:
    """[N] where the units of each kind start; segments where they are given."""
    n = len(encoded)
    line = np.array([encoded.text.count("\n", 0, int(a)) for a in encoded.start], dtype=np.int64)
    found: dict[AttributionUnit, NDArray[np.bool_]] = {
        "tokens": np.ones(n, dtype=bool),
        "words": word_starts(encoded.text, encoded.start, encoded.continuation),
        "lines": np.diff(line, prepend=-1) > 0,
    }
    if segments is not None:
        found["segments"] = segments.copy()
    for starts in found.values():
        starts[:1] = True
    return {unit: found[unit] for unit in ATTRIBUTION_UNITS if unit in found}


def offered(
    encoded: EncodedText, features: NDArray[np.int64], segments: NDArray[np.bool_] | None = None
) -> tuple[AttributionUnit, ...]:
    """Units that cut no feature in two: the parts of a feature have no value of their own.

    Args:
        encoded: the tokens.
        features: [t] the feature of each token before the target; consecutive ones.
        segments: [N] where segments start, if that is known.
    """
    opens = np.diff(features, prepend=-1) != 0
    every = unit_starts(encoded, segments)
    return tuple(unit for unit, starts in every.items() if not (starts[: len(features)] & ~opens).any())


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
        values: [t] of the tokens before the target; NaN is not attributed.
        unit: see `ATTRIBUTION_UNITS`.
        batches: [B, t] independent estimates of the values, for standard errors.
        segments: [N] where segments start, for that unit.

    Raises:
        MicroStepError: no such unit, or segments that are not given.
    """
    check_choice("unit", unit, list(ATTRIBUTION_UNITS))
    every = unit_starts(encoded, segments)
    if unit not in every:
        raise MicroStepError("there are no segments: choose a strategy")
    t = len(values)
    first = np.flatnonzero(every[unit][:t])
    last = np.append(first[1:], t) - 1

    def total(row: NDArray[np.float64]) -> NDArray[np.float64]:
        there = ~np.isnan(row)
        sums = np.add.reduceat(np.where(there, row, 0.0), first)
        return np.where(np.add.reduceat(there.astype(int), first) > 0, sums, np.nan)

    error = None
    if batches is not None:
        error = np.stack([total(row) for row in batches]).std(axis=0, ddof=1) / np.sqrt(len(batches))
    text = tuple(
        encoded.text[int(encoded.start[a]) : int(encoded.end[b])]
        for a, b in zip(first.tolist(), last.tolist(), strict=True)
    )
    return Grouped(unit, first, last, total(values), error, text)


def unit_table(found: Grouped, encoded: EncodedText, scale: float = 1.0, information: str = "nats") -> pd.DataFrame:
    """A row a unit: its text, first and last token, characters of what the model read, and attribution.

    `information` names what the attribution is measured in, once it is scaled: bits, nats or probability.
    """
    missing = np.full(len(found), np.nan)
    columns: Mapping[str, object] = {
        "unit": np.arange(len(found)),
        "text": pd.Series(found.text, dtype="str"),
        "first_token": found.first,
        "last_token": found.last,
        "start": encoded.start[found.first],
        "end": encoded.end[found.last],
        "attribution": found.value * scale,
        "standard_error": (missing if found.standard_error is None else found.standard_error) * scale,
        "information": information,
    }
    return pd.DataFrame(columns)
