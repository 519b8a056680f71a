"""The scores that can be shown, and their units: one registry for the app, the figures and the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["bits", "nats"]
PER_NAT: dict[str, float] = {"bits": 1 / math.log(2), "nats": 1.0}


@dataclass(frozen=True)
class Score:
    """A score of a token: its name, its meaning, and its colour scale."""

    name: str  # the field of TokenScores
    title: str
    meaning: str  # one sentence for help texts
    information: bool  # measured in bits or nats
    low: str  # what the lower end of the scale means
    high: str  # what the upper end of the scale means
    top_bits: float  # the upper end of the fixed colour scale, in bits; 1 for probabilities
    falls: bool = False  # a small value means unsure, so the colour scale is reversed

    def unit(self, unit: Unit) -> str:
        """The unit on an axis."""
        return unit if self.information else "probability" if self.top_bits == 1 else "rank"

    def values(self, raw: NDArray[np.floating], unit: Unit) -> NDArray[np.float32]:
        """Convert stored values (nats or probabilities) to shown values."""
        return np.asarray(raw * (PER_NAT[unit] if self.information else 1.0), dtype=np.float32)

    def top(self, unit: Unit) -> float:
        """The upper end of the colour scale in the shown unit; it is the same for all models and texts."""
        return self.top_bits * (PER_NAT[unit] / PER_NAT["bits"]) if self.information else self.top_bits

    def shade(self, shown: NDArray[np.floating], unit: Unit) -> NDArray[np.float32]:
        """Convert shown values to [0, 1] of the colour scale, where 1 is unsure. NaN stays NaN."""
        share = np.clip(shown / self.top(unit), 0, 1)
        return np.asarray(1 - share if self.falls else share, dtype=np.float32)


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            "entropy",
            "entropy",
            "H = -sum p ln p over the model's whole vocabulary, before it reads the token: how open the choice is.",
            information=True,
            low="sure",
            high="unsure",
            top_bits=8,
        ),
        Score(
            "confidence",
            "confidence",
            "The probability of the likeliest token, whether or not it is the actual one.",
            information=False,
            low="unsure",
            high="sure",
            top_bits=1,
            falls=True,
        ),
        Score(
            "margin",
            "margin",
            "The probability of the likeliest token minus that of the second likeliest.",
            information=False,
            low="tied",
            high="clear",
            top_bits=1,
            falls=True,
        ),
        Score(
            "surprisal",
            "surprisal",
            "-ln p of the actual token: how unexpected it is.",
            information=True,
            low="expected",
            high="surprising",
            top_bits=16,
        ),
    )
}


def unit_of(inside: str, unit: Unit) -> str:
    """The unit in which a number stored in `inside` is shown: nats are shown in the chosen unit."""
    return unit if inside == "nats" else inside


def significant(value: float, digits: int = 3) -> str:
    """A number with at most `digits` significant digits, without an exponent unless it is tiny."""
    if not math.isfinite(value):
        return "missing" if math.isnan(value) else str(value)
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    if abs(rounded) < 1e-5:
        return f"{value:.{digits - 1}e}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{places}f}"
