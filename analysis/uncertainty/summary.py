"""The numbers that answer "which model is less sure, and by how much?", each with its interval.

Means are taken over what both models scored; for continuations, over what each wrote. Entropies per token can be
compared only if the tokens are the same, since a tokenizer with smaller tokens has less entropy at each. Otherwise the
difference is taken per byte of text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.intervals import Estimate, difference, ratio
from analysis.score_registry import PER_NAT, Unit, significant
from analysis.uncertainty.result import Comparison, ScoredText


@dataclass(frozen=True)
class Contrast:
    """One number of both models, and their difference."""

    a: float
    b: float
    gap: Estimate  # B - A, with its 95% interval (see analysis/intervals.py)


@dataclass(frozen=True)
class ComparisonSummary:
    """The numbers of a comparison, for one role or for all."""

    unit: Unit  # of the entropies
    role: str  # "all", or the one role that counts
    same_tokens: bool  # one tokenizer: a token of A is a token of B
    paired: bool  # both models read the same text; False for continuations
    tokens_a: int
    tokens_b: int
    bytes_a: int  # UTF-8 bytes of the scored text; different from B's only for continuations
    bytes_b: int
    entropy: Contrast  # mean per token
    entropy_per_byte: Contrast
    confidence: Contrast  # mean per token
    bits_per_byte: Contrast  # surprisal, always in bits; NaN for continuations, which share no text

    @property
    def per(self) -> Literal["token", "byte"]:
        """Whether the difference in entropy is per token or per byte."""
        return "byte" if self.paired and not self.same_tokens else "token"

    @property
    def difference(self) -> Estimate:
        """B - A in entropy: per byte if two tokenizers split the text, else per token.

        For continuations, which are different texts, it is per token that a model wrote.
        """
        return self.entropy_per_byte.gap if self.per == "byte" else self.entropy.gap

    @property
    def interval(self) -> str:
        """The interval of the difference in words, or why there is none."""
        if self.difference.known:
            return f"95% interval {self.difference.ends()}"
        return "no interval: there is no difference" if self.difference.mean == 0 else "no interval: too few tokens"

    @property
    def finding(self) -> str:
        """One sentence that states what was found."""
        if not self.tokens_a or not self.tokens_b:
            return "Both models scored no common text."
        gap = self.difference
        tokens = f"{self.tokens_a:,}" if self.tokens_a == self.tokens_b else f"{self.tokens_a:,} and {self.tokens_b:,}"
        tokens += " tokens" if self.same_tokens or self.paired else " tokens of different lengths"
        sign = "+" if gap.mean > 0 else ""
        size = f"{sign}{significant(gap.mean)} {self.unit} of entropy per {self.per} ({self.interval}, {tokens})"
        if not gap.known and gap.mean != 0:
            return f"Too few tokens to say which model is more sure: B minus A is {size}."
        if not gap.clear:
            return f"No clear difference: B minus A is {size}."
        return f"B is {'less' if gap.mean > 0 else 'more'} sure than A: {size}."


@dataclass(frozen=True)
class _PairSums:
    """One model's sums over n units, which are cells, or the tokens that it wrote."""

    entropy: NDArray[np.float64]  # [n] nats
    confidence: NDArray[np.float64]  # [n]
    surprisal: NDArray[np.float64]  # [n] nats
    tokens: NDArray[np.int64]  # [n]
    bytes: NDArray[np.int64]  # [n]


def summarise(comparison: Comparison, unit: Unit = "nats", role: str = "all") -> ComparisonSummary:
    """Means over what both models scored (for continuations, over what each wrote), with their intervals."""
    paired = comparison.cells is not None
    a, b = _sums(comparison, role)
    per = PER_NAT[unit]

    def contrast(a_sum: NDArray[np.float64], b_sum: NDArray[np.float64], over: Literal["tokens", "bytes"]) -> Contrast:
        a_weight, b_weight = getattr(a, over), getattr(b, over)
        gap = difference(b_sum, b_weight, a_sum, a_weight, paired=paired)
        return Contrast(ratio(a_sum, a_weight).mean, ratio(b_sum, b_weight).mean, gap)

    nothing = Contrast(np.nan, np.nan, Estimate(np.nan, np.nan, np.nan))
    bits = PER_NAT["bits"]
    return ComparisonSummary(
        unit=unit,
        role=role,
        same_tokens=comparison.a.facts.tokenizer_hash == comparison.b.facts.tokenizer_hash,
        paired=paired,
        tokens_a=int(a.tokens.sum()),
        tokens_b=int(b.tokens.sum()),
        bytes_a=int(a.bytes.sum()),
        bytes_b=int(b.bytes.sum()),
        entropy=contrast(a.entropy * per, b.entropy * per, "tokens"),
        entropy_per_byte=contrast(a.entropy * per, b.entropy * per, "bytes"),
        confidence=contrast(a.confidence, b.confidence, "tokens"),
        bits_per_byte=contrast(a.surprisal * bits, b.surprisal * bits, "bytes") if paired else nothing,
    )


def _sums(comparison: Comparison, role: str) -> tuple[_PairSums, _PairSums]:
    cells = comparison.cells
    if cells is None:
        return _own(comparison.a), _own(comparison.b)
    chosen = np.ones(len(cells), dtype=bool) if role == "all" else cells.role == role
    sides = []
    for scores, total, tokens in (
        (comparison.a.scores, cells.sum_a, cells.tokens_a),
        (comparison.b.scores, cells.sum_b, cells.tokens_b),
    ):
        sides.append(
            _PairSums(
                total(scores.entropy)[chosen],
                total(scores.confidence)[chosen],
                total(scores.surprisal)[chosen],
                tokens[chosen],
                cells.bytes[chosen],
            )
        )
    return sides[0], sides[1]


def _own(side: ScoredText) -> _PairSums:
    """The tokens that a model wrote, each a unit; a split character counts where it starts.

    The end token is a choice like any other, so it counts as a token; it is no text, so it counts no bytes.
    """
    own, encoded = side.own, side.encoded
    reach = np.concatenate([[0], np.cumsum([len(character.encode("utf-8")) for character in encoded.text])])
    bytes_ = reach[encoded.end] - reach[np.minimum(encoded.start + encoded.continuation, encoded.end)]
    if side.ended:
        bytes_[-1] = 0
    return _PairSums(
        side.scores.entropy[own].astype(np.float64),
        side.scores.confidence[own].astype(np.float64),
        side.scores.surprisal[own].astype(np.float64),
        np.ones(int(own.sum()), dtype=np.int64),
        bytes_[own].astype(np.int64),
    )
