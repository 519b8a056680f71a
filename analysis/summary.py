"""The figures that answer "which model is less sure, and by how much?", each with its interval.

Means are taken over what both models scored (or, of continuations, over what each wrote).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.bootstrap import Estimate, difference, ratio
from analysis.compare import Comparison
from analysis.units import PER_NAT, Unit, significant


@dataclass(frozen=True)
class Summary:
    """The figures that answer "who is less sure, and by how much?". Entropies are per token, in `unit`."""

    unit: Unit
    role: str  # "all", or the role that the figures are restricted to
    tokens_a: int
    tokens_b: int
    bytes: int  # of the text that both scored; 0 for continuations, which have no text in common
    entropy_a: Estimate
    entropy_b: Estimate
    entropy_difference: Estimate  # B - A, per token of each
    confidence_a: Estimate
    confidence_b: Estimate
    confidence_difference: Estimate
    bits_per_byte_a: float  # surprisal; always bits
    bits_per_byte_b: float
    bits_per_byte_difference: Estimate

    @property
    def finding(self) -> str:
        """One sentence that states what was found."""
        if not self.tokens_a or not self.tokens_b:
            return "There is nothing that both models scored."
        gap, unit = self.entropy_difference, self.unit
        tokens = f"{self.tokens_a:,}" if self.tokens_a == self.tokens_b else f"{self.tokens_a:,} and {self.tokens_b:,}"
        interval = f"95% interval {significant(gap.low)} to {significant(gap.high)}, {tokens} tokens"
        if not gap.clear:
            return (
                f"No clear difference: B minus A is {significant(gap.mean)} {unit} of entropy per token ({interval})."
            )
        side = "less" if gap.mean > 0 else "more"
        return f"B is {side} sure than A: {gap.mean:+.2f} {unit} of entropy per token ({interval})."


def summarise(comparison: Comparison, unit: Unit = "bits", role: str = "all") -> Summary:
    """Means over what both models scored (or, in a continuation, over what each wrote), with their intervals."""
    if comparison.cells is None:
        return _summary_of_own(comparison, unit)
    cells, a, b = comparison.cells, comparison.a.scores, comparison.b.scores
    chosen = np.ones(len(cells), dtype=bool) if role == "all" else cells.role == role
    n_a, n_b, size = cells.tokens_a[chosen], cells.tokens_b[chosen], cells.bytes[chosen]
    per = PER_NAT[unit]
    entropy = cells.sum_a(a.entropy)[chosen] * per, cells.sum_b(b.entropy)[chosen] * per
    confidence = cells.sum_a(a.confidence)[chosen], cells.sum_b(b.confidence)[chosen]
    surprisal = cells.sum_a(a.surprisal)[chosen] * PER_NAT["bits"], cells.sum_b(b.surprisal)[chosen] * PER_NAT["bits"]
    return Summary(
        unit=unit,
        role=role,
        tokens_a=int(n_a.sum()),
        tokens_b=int(n_b.sum()),
        bytes=int(size.sum()),
        entropy_a=ratio(entropy[0], n_a),
        entropy_b=ratio(entropy[1], n_b),
        entropy_difference=difference(entropy[1], n_b, entropy[0], n_a),
        confidence_a=ratio(confidence[0], n_a),
        confidence_b=ratio(confidence[1], n_b),
        confidence_difference=difference(confidence[1], n_b, confidence[0], n_a),
        bits_per_byte_a=ratio(surprisal[0], size).mean,
        bits_per_byte_b=ratio(surprisal[1], size).mean,
        bits_per_byte_difference=difference(surprisal[1], size, surprisal[0], size),
    )


def _summary_of_own(comparison: Comparison, unit: Unit) -> Summary:
    """Each model over its own tokens: different texts, so resampled independently and without bits per byte."""
    sides = []
    for side in (comparison.a, comparison.b):
        own = side.own
        sides.append((side.scores.entropy[own] * PER_NAT[unit], side.scores.confidence[own], np.ones(int(own.sum()))))
    (entropy_a, confidence_a, n_a), (entropy_b, confidence_b, n_b) = sides
    nothing = Estimate(float("nan"), float("nan"), float("nan"))
    return Summary(
        unit=unit,
        role="all",
        tokens_a=len(n_a),
        tokens_b=len(n_b),
        bytes=0,
        entropy_a=ratio(entropy_a, n_a),
        entropy_b=ratio(entropy_b, n_b),
        entropy_difference=difference(entropy_b, n_b, entropy_a, n_a, paired=False),
        confidence_a=ratio(confidence_a, n_a),
        confidence_b=ratio(confidence_b, n_b),
        confidence_difference=difference(confidence_b, n_b, confidence_a, n_a, paired=False),
        bits_per_byte_a=float("nan"),
        bits_per_byte_b=float("nan"),
        bits_per_byte_difference=nothing,
    )


def summary_table(comparison: Comparison, unit: Unit = "bits") -> pd.DataFrame:
    """One row for all roles and one for each: means, differences and their 95% intervals."""
    roles = ["all"]
    if comparison.cells is not None:
        found = sorted(set(comparison.cells.role.tolist()))
        roles += found if len(found) > 1 else []
    rows = []
    for role in roles:
        s = summarise(comparison, unit, role)
        row: dict[str, object] = {"role": role, "tokens_a": s.tokens_a, "tokens_b": s.tokens_b, "bytes": s.bytes}
        for name in ("entropy", "confidence"):
            gap: Estimate = getattr(s, f"{name}_difference")
            row |= {
                f"{name}_a": getattr(s, f"{name}_a").mean,
                f"{name}_b": getattr(s, f"{name}_b").mean,
                f"{name}_difference": gap.mean,
                f"{name}_low": gap.low,
                f"{name}_high": gap.high,
            }
        row |= {"bits_per_byte_a": s.bits_per_byte_a, "bits_per_byte_b": s.bits_per_byte_b}
        gap = s.bits_per_byte_difference
        row |= {"bits_per_byte_difference": gap.mean, "bits_per_byte_low": gap.low, "bits_per_byte_high": gap.high}
        rows.append({**row, "unit": unit})
    return pd.DataFrame(rows)
