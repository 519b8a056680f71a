"""The answer to "which model is less sure, and by how much?", each number with its interval.

Means are taken over what both models scored; for continuations, over what each wrote. Entropies per token can be
compared only if the tokens are the same, since a tokenizer with smaller tokens has less entropy at each. Otherwise the
difference is taken per byte of text.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.intervals import Estimate, difference, ratio
from analysis.score_registry import MEASURES, PER_NAT, SCORES, Score, Unit, significant
from analysis.uncertainty.result import Comparison, ScoredText

Per = Literal["token", "byte"]
NOTHING_SCORED = "No token is scored under both models. Without BOS, the first token of a text has no score."


@dataclass(frozen=True)
class Contrast:
    """One number of both models, and their difference."""

    a: float
    b: float
    gap: Estimate  # B - A, with its 95% interval (see analysis/intervals.py)


@dataclass(frozen=True)
class PairSums:
    """One model's sums over n units, which are cells, or the tokens that it wrote."""

    scores: dict[str, NDArray[np.float64]]  # [n] each of SCORES, in nats or as probabilities
    tokens: NDArray[np.float64]  # [n] whole numbers, as are bytes
    bytes: NDArray[np.float64]  # [n] in UTF-8


@dataclass(frozen=True, eq=False)
class ComparisonSummary:
    """The numbers of a comparison, for one role or for all, and the finding in one score."""

    unit: Unit
    role: str  # "all", or the one role that counts
    score: Score  # the one that the finding speaks of
    same_tokens: bool  # one tokenizer: a token of A is a token of B
    paired: bool  # both models read the same text; False for continuations
    a: PairSums
    b: PairSums
    change: tuple[Score, Estimate, str] | None = None  # a measure, its mean, per what: the finding speaks of it instead

    @property
    def tokens_a(self) -> int:
        """Tokens of A that count."""
        return int(self.a.tokens.sum())

    @property
    def tokens_b(self) -> int:
        """Tokens of B that count."""
        return int(self.b.tokens.sum())

    @property
    def bytes_a(self) -> int:
        """UTF-8 bytes of the scored text; different from B's only for continuations."""
        return int(self.a.bytes.sum())

    @property
    def bytes_b(self) -> int:
        """As `bytes_a`."""
        return int(self.b.bytes.sum())

    def mean(self, name: str, per: Per = "token") -> Contrast:
        """The mean of one of SCORES per token or per byte."""
        return self._contrast(name, per, PER_NAT[self.unit] if SCORES[name].information else 1)

    @cached_property
    def bits_per_byte(self) -> Contrast:
        """Surprisal per byte, always in bits; NaN for continuations, which share no text."""
        if not self.paired:
            return Contrast(np.nan, np.nan, Estimate(np.nan, np.nan, np.nan))
        return self._contrast("surprisal", "byte", PER_NAT["bits"])

    def _contrast(self, name: str, per: Per, factor: float) -> Contrast:
        (a, a_weight), (b, b_weight) = (
            (side.scores[name] * factor, side.tokens if per == "token" else side.bytes) for side in (self.a, self.b)
        )
        gap = difference(b, b_weight, a, a_weight, paired=self.paired)
        return Contrast(ratio(a, a_weight).mean, ratio(b, b_weight).mean, gap)

    @property
    def per(self) -> Per:
        """Whether the difference is per token or per byte; probabilities have no rate per byte."""
        return "byte" if self.paired and not self.same_tokens and self.score.information else "token"

    @cached_property
    def difference(self) -> Estimate:
        """B - A in the score: per byte if two tokenizers split the text, else per token.

        For continuations, which are different texts, it is per token that a model wrote.
        """
        return self.mean(self.score.name, self.per).gap

    @property
    def finding(self) -> str:
        """One sentence that states what was found."""
        if not self.tokens_a or not self.tokens_b:
            return NOTHING_SCORED
        tokens = f"{self.tokens_a:,}" if self.tokens_a == self.tokens_b else f"{self.tokens_a:,} and {self.tokens_b:,}"
        tokens += " token" if tokens == "1" else " tokens"
        tokens += "" if self.same_tokens or self.paired else " of different lengths"
        if self.change is not None:
            measure, mean, per = self.change
            size = f"{signed(mean.mean, measure.signed)} {measure.unit(self.unit)} per {per}"
            within = interval(mean, measure.signed)
            return f"{measure.title[0].upper()}{measure.title[1:]}: {size} ({within}, {tokens})."
        gap = self.difference
        amount = f"{self.unit} of {self.score.title}" if self.score.information else f"of {self.score.title}"
        size = f"{signed(gap.mean)} {amount} per {self.per} ({interval(gap)}, {tokens})"
        if not gap.known and gap.mean != 0:
            return f"Too few tokens to say whether the models differ: B minus A is {size}."
        if not gap.clear:
            return f"No clear difference: B minus A is {size}."
        return f"{self.score.rise if gap.mean > 0 else self.score.drop} than A: {size}."


def interval(estimate: Estimate, sign: bool = True) -> str:
    """The interval of a difference in words, or why there is none."""
    if estimate.known:
        return f"95% interval {estimate.ends(lambda value: signed(value, sign))}"
    return "no interval: there is no difference" if estimate.mean == 0 else "no interval: too few tokens"


def signed(value: float, sign: bool = True) -> str:
    """A number with its sign."""
    return ("+" if sign and value > 0 else "") + significant(value).replace("-", "\u2212")


def summarise(
    comparison: Comparison, unit: Unit = "nats", role: str = "all", score: str = "entropy", measure: str = ""
) -> ComparisonSummary:
    """Means over what both models scored (for continuations, over what each wrote), with their intervals.

    Args:
        comparison: what is summarised.
        unit: of entropy and surprisal.
        role: "all", or the one role that counts.
        score: one of SCORES: the finding speaks of it.
        measure: one of MEASURES, of which the finding speaks instead where the comparison has it.
    """
    cells = comparison.cells
    if cells is None:
        a, b = _own(comparison.a), _own(comparison.b)
    else:
        chosen = np.ones(len(cells), dtype=bool) if role == "all" else cells.role == role
        a, b = (
            PairSums(
                {name: total(getattr(side.scores, name))[chosen] for name in SCORES},
                tokens[chosen].astype(np.float64),
                cells.bytes[chosen].astype(np.float64),
            )
            for side, total, tokens in (
                (comparison.a, cells.sum_a, cells.tokens_a),
                (comparison.b, cells.sum_b, cells.tokens_b),
            )
        )
    same = comparison.a.facts.tokenizer_hash == comparison.b.facts.tokenizer_hash
    change = None
    if cells is not None and measure == "rank_change":
        change = MEASURES[measure], ratio(rank_change(comparison)[chosen], np.ones_like(a.tokens)), "piece of text"
    elif cells is not None and comparison.divergences is not None and hasattr(comparison.divergences, measure):
        per = PER_NAT[unit] if MEASURES[measure].information else 1
        total = cells.sum_a(getattr(comparison.divergences, measure))[chosen] * per
        change = MEASURES[measure], ratio(total, a.tokens), "token"
    return ComparisonSummary(unit, role, SCORES[score], same, cells is not None, a, b, change)


def rank_change(comparison: Comparison) -> NDArray[np.float64]:
    """[C] log10 of B's rank of the actual token over A's; over several tokens, of the geometric means."""
    cells = comparison.cells
    assert cells is not None
    rank_a, rank_b = (np.log10(np.maximum(side.scores.rank, 1)) for side in (comparison.a, comparison.b))
    change: NDArray[np.float64] = cells.sum_b(rank_b) / cells.tokens_b - cells.sum_a(rank_a) / cells.tokens_a
    return change


def _own(side: ScoredText) -> PairSums:
    """The tokens that a model wrote, each a unit; a split character counts where it starts.

    The end token is a choice like any other, so it counts as a token; it is no text, so it counts no bytes.
    """
    own, encoded = side.own, side.encoded
    reach = np.concatenate([[0], np.cumsum([len(character.encode("utf-8")) for character in encoded.text])])
    bytes_ = reach[encoded.end] - reach[np.minimum(encoded.start + encoded.continuation, encoded.end)]
    if side.ended:
        bytes_[-1] = 0
    return PairSums(
        {name: getattr(side.scores, name)[own].astype(np.float64) for name in SCORES},
        np.ones(int(own.sum())),
        bytes_[own].astype(np.float64),
    )
