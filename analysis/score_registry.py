"""The scores that can be shown, and their units: one registry for the app, the figures and the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Unit = Literal["bits", "nats"]
PER_NAT: dict[str, float] = {"bits": 1 / math.log(2), "nats": 1.0}


@dataclass(frozen=True)
class Score:
    """A score of a token, or a measure of change of a piece of text: its name, its meaning, and its colour scale."""

    name: str  # the field of TokenScores, or the column of cell_table
    title: str
    meaning: str  # one sentence for help texts
    low: str  # what the lower end of the scale means
    high: str  # what the upper end of the scale means
    top_bits: float  # the upper end of the fixed colour scale: in bits, or in `plain_unit`
    rise: str = ""  # what holds where B has more of it than A: "B is less sure"
    drop: str = ""  # where B has less
    information: bool = False  # measured in bits or nats
    plain_unit: str = "probability"  # where it is not
    falls: bool = False  # a small value means unsure, so the colour scale is reversed
    signed: bool = False  # the scale runs from -top to top

    def unit(self, unit: Unit) -> str:
        """The unit on an axis."""
        return unit if self.information else self.plain_unit

    def values(self, raw: NDArray[np.floating], unit: Unit) -> NDArray[np.float32]:
        """Convert stored values (nats or probabilities) to shown values."""
        return np.asarray(raw * (PER_NAT[unit] if self.information else 1.0), dtype=np.float32)

    def top(self, unit: Unit) -> float:
        """The upper end of the colour scale in the shown unit; it is the same for all models and texts."""
        return self.top_bits * (PER_NAT[unit] / PER_NAT["bits"]) if self.information else self.top_bits

    def bottom(self, unit: Unit) -> float:
        """The lower end of the colour scale in the shown unit."""
        return -self.top(unit) if self.signed else 0.0

    def shade(self, shown: NDArray[np.floating], unit: Unit) -> NDArray[np.float32]:
        """Convert shown values to [0, 1] of the colour scale, or [-1, 1] if signed; 1 is unsure. NaN stays NaN."""
        share = np.clip(shown / self.top(unit), -1 if self.signed else 0, 1)
        if self.falls:
            share = -share if self.signed else 1 - share
        return np.asarray(share, dtype=np.float32)

    def ends(self, unit: Unit) -> tuple[str, str]:
        """What stands at the lower and at the upper end of the colour scale."""
        size, of = f"{self.top(unit):.2g}", self.unit(unit)
        zero = f"0 {of}"
        of = of.removesuffix("s") if size == "1" and self.information else of
        below = f"\u2212{size} {of} or less" if self.signed else zero
        above = f"{size} {of}" if self.top_bits == 1 and not self.signed else f"{size} {of} or more"
        low, high = f"{below}, {self.low}", f"{above}, {self.high}"
        return (high, low) if self.falls else (low, high)

    def difference(self) -> Score:
        """B minus A in this score, on half of its range to either side."""
        return replace(
            self,
            name=f"{self.name}_difference",
            title=f"B \u2212 A in {self.title}",
            meaning=f"B's {self.title} minus A's, summed over the tokens of a piece; probabilities are averaged.",
            low=self.drop,
            high=self.rise,
            top_bits=self.top_bits / 2,
            signed=True,
        )


SCORES: dict[str, Score] = {
    score.name: score
    for score in (
        Score(
            "entropy",
            "entropy",
            "H = −Σ p ln p over the model's whole vocabulary, before it reads the token: how open the choice is.",
            low="sure",
            high="unsure",
            top_bits=8,
            rise="B is less sure",
            drop="B is more sure",
            information=True,
        ),
        Score(
            "confidence",
            "confidence",
            "The probability of the likeliest token, whether or not it is the actual one.",
            low="unsure",
            high="sure",
            top_bits=1,
            rise="B is more sure",
            drop="B is less sure",
            falls=True,
        ),
        Score(
            "margin",
            "margin",
            "The probability of the likeliest token minus that of the second likeliest.",
            low="tied",
            high="clear",
            top_bits=1,
            rise="B decides more clearly",
            drop="B decides less clearly",
            falls=True,
        ),
        Score(
            "surprisal",
            "surprisal",
            "−ln p of the actual token: how unexpected it is.",
            low="expected",
            high="surprising",
            top_bits=16,
            rise="B expects the text less",
            drop="B expects the text more",
            information=True,
        ),
        Score(
            "excess_surprisal",
            "surprise beyond expectation",
            "Surprisal minus entropy: above 0 where the actual token is more surprising than the model expects.",
            low="less surprising than expected",
            high="more surprising than expected",
            top_bits=8,
            rise="B is more surprised",
            drop="B is less surprised",
            information=True,
            signed=True,
        ),
    )
}

DIFFERENCE = "difference"
MEASURES: dict[str, Score] = {
    measure.name: measure
    for measure in (
        Score(
            "kl_ab",
            "KL(A‖B)",
            "Σ pA ln(pA / pB): large where A expects tokens that B does not.",
            low="equal predictions",
            high="far apart",
            top_bits=4,
            information=True,
        ),
        Score(
            "kl_ba",
            "KL(B‖A)",
            "Σ pB ln(pB / pA): large where B expects tokens that A does not.",
            low="equal predictions",
            high="far apart",
            top_bits=4,
            information=True,
        ),
        Score(
            "js",
            "JS",
            "Jensen-Shannon divergence: symmetric, at most 1 bit per token.",
            low="equal predictions",
            high="far apart",
            top_bits=1,
            information=True,
        ),
        Score(
            "tv",
            "probability moved",
            "Total variation, half the sum of |pA − pB|: the probability that moves from some tokens to others.",
            low="equal predictions",
            high="all of it moved",
            top_bits=1,
        ),
        Score(
            "rank_change",
            "rank change",
            "log10 of B's rank of the actual token over A's: 1 where it ranks ten times as low in B.",
            low="ranks higher in B",
            high="ranks lower in B",
            top_bits=2,
            plain_unit="log10",
            signed=True,
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
