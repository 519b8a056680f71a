"""How evenly the micro decoder uses the K context states that it reads: statistics of a query, their means, a verdict.

For one query in one head, w are the weights over the visible slots, p those over the K context states divided by their
sum, and H = -sum p ln p. Means are over queries, so a segment of four tokens counts three times.

Intervals are over documents (for a single text, over its segments), so only sums per document are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from analysis.intervals import SHARE, Estimate, Estimates, Units, quotient

Floats = NDArray[np.float64]
Axis = Literal["layer", "head", "position"]
AXES: tuple[Axis, ...] = ("layer", "head", "position")
Verdict = Literal["confirmed", "refuted", "undecided", "undefined"]
UNDEFINED = "with one context state there is nothing to use evenly: evenness is not defined, and the claim says nothing"
BAR = 0.75  # from this share of the K context states on, their use counts as fairly even

FIGURES: dict[str, tuple[str, str]] = {
    "evenness": ("evenness", "H / ln K of the weights over the K context states: 1 is perfectly even, 0 one state"),
    "effective": ("effective context states", "exp H: as many states, used evenly, would have this entropy; 1 to K"),
    "largest": ("largest share", "weight of the most attended context state over that of all K; 1 / K is even"),
    "context_share": ("share on the context", "weight on the K context states over that on all slots that are seen"),
    "evenness_all": ("evenness over all slots", "entropy over the K + j slots that are seen, over ln(K + j)"),
}


@dataclass(frozen=True)
class MeasuredEvenness:
    """Statistics of Q segments; NaN (and -1 in `top`) if there is no query, or no weight on the context."""

    figures: Floats  # [F, Q, L, H, P] in the order of FIGURES
    top: NDArray[np.int64]  # [Q, L, H, P] the context state with the largest weight


def measure(weights: NDArray[np.floating], states: int) -> MeasuredEvenness:
    """The statistics of each query.

    Args:
        weights: [Q, L, H, P, K + P], NaN in slots that a query does not see.
        states: K.
    """
    w = weights.astype(np.float64)
    asked = ~np.isnan(w[..., 0])
    context, seen = w[..., :states], ~np.isnan(w)
    whole, part = np.nansum(w, -1), context.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = context / part[..., None]
        entropy = _entropy(p)
        figures = np.stack(
            [
                entropy / np.log(states) if states > 1 else np.full_like(entropy, np.nan),
                np.exp(entropy),
                p.max(-1),
                np.where(asked, part / whole, np.nan),
                _entropy(np.where(seen, w / whole[..., None], 0.0)) / np.log(seen.sum(-1)),
            ]
        )
    figures[:, ~asked] = np.nan
    there = np.isfinite(entropy) & asked
    return MeasuredEvenness(figures, np.where(there, np.argmax(np.where(np.isnan(context), -1.0, context), -1), -1))


def _entropy(p: Floats) -> Floats:
    """[...] -sum p ln p over the last axis, with 0 ln 0 = 0."""
    entropy: Floats = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
    return entropy


@dataclass(frozen=True)
class EvennessSums:
    """Sums over the queries of a text or corpus, for each of U units."""

    states: int  # K
    units: Units  # the units of the intervals
    queries: Floats  # [U, P]
    segments: int  # of two tokens and more
    weights: Floats  # [U, L, H, P, K + P]
    figures: Floats  # [F, U, L, H, P]
    counted: Floats  # [U, L, H, P] queries with all statistics
    top: Floats  # [U, L, H, P, K] queries whose largest weight is on this context state

    def __post_init__(self) -> None:
        u, p = self.queries.shape
        shape = self.counted.shape
        if (shape[0], shape[3]) != (u, p) or self.weights.shape != (*shape, self.states + p):
            raise ValueError(f"queries {self.queries.shape}, counted {shape} and weights {self.weights.shape} differ")

    @classmethod
    def of(
        cls, parts: Iterable[tuple[NDArray[np.int64], NDArray[np.floating]]], states: int, units: Units
    ) -> EvennessSums:
        """Add up parts, each the rows [Q] of `units` and their weights [Q, L, H, P, K + P]."""
        total: EvennessSums | None = None
        for rows, weights in parts:
            part = _sums(units, rows, weights, states)
            total = part if total is None else total.plus(part)
        if total is None:
            raise ValueError("there are no weights to add up")
        return total

    def plus(self, other: EvennessSums) -> EvennessSums:
        """The sums of both, unit by unit: more segments of the same documents, or a model of another seed."""
        if self.states != other.states or self.counted.shape != other.counted.shape:
            raise ValueError(f"sums of shapes {self.counted.shape} and {other.counted.shape} cannot be added")
        names = ("queries", "segments", "weights", "figures", "counted", "top")
        both = {name: getattr(self, name) + getattr(other, name) for name in names}
        return EvennessSums(states=self.states, units=self.units, **both)

    @property
    def positions(self) -> int:
        """P, the number of queries of the longest segment; the first predicts token 2."""
        return int(self.queries.shape[1])

    def figure(self, name: str, by: Sequence[Axis] = ()) -> Estimates:
        """The mean of a statistic over queries, with its interval: over the axes `by`, pooled over the others."""
        over = tuple(1 + i for i, axis in enumerate(AXES) if axis not in by)
        total = self.figures[list(FIGURES).index(name)].sum(over)
        within = (1.0, float(self.states)) if name == "effective" else SHARE
        return self._mean(total, self.counted.sum(over), within)

    @cached_property
    def mean_weights(self) -> Estimates:
        """[L, H, P, K + P] mean weights over queries; NaN in slots that a query does not see."""
        return self._mean(_unseen(self.weights, self.states), self.queries[:, None, None, :, None])

    @cached_property
    def slot_shares(self) -> Estimates:
        """[P, K + P] mean weights over queries, heads and layers."""
        layers, heads = self.counted.shape[1:3]
        return self._mean(_unseen(self.weights.sum((1, 2)), self.states), self.queries[..., None] * layers * heads)

    @cached_property
    def largest_at(self) -> Estimates:
        """[K] share of queries whose largest weight is on this context state."""
        return self._mean(self.top.sum((1, 2, 3)), self.counted.sum((1, 2, 3))[..., None])

    @cached_property
    def effective_of_mean(self) -> Estimate:
        """Exp H of the weights averaged over queries, heads and layers, where heads with different preferences cancel.

        This is only for comparison: the claim is about each head.
        """
        context = self.weights[..., : self.states].sum((1, 2, 3))
        sums = self.units.left_out(context)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = _entropy(sums / sums.sum(-1, keepdims=True))
        return self.units.estimates(np.exp(entropy), context.sum(-1), (1.0, float(self.states))).at()

    @property
    def effective(self) -> Estimate:
        """The pooled number of effective context states, on which the verdict is based."""
        return self.figure("effective").at()

    def _mean(self, total: Floats, weight: Floats, within: tuple[float, float] = SHARE) -> Estimates:
        """Sum of totals divided by sum of weights, each [U, ...], with the interval."""
        left = self.units.left_out
        return self.units.estimates(quotient(left(total), left(weight)), weight, within)


def verdict(effective: Estimate, states: int) -> Verdict:
    """Whether all context states are used fairly evenly.

    Confirmed: the whole interval of the effective number of context states is at least BAR times K. Refuted: the whole
    interval is below. Undefined: there is only one state.
    """
    if states == 1:
        return "undefined"
    bar = BAR * states
    if effective.low >= bar:
        return "confirmed"
    return "refuted" if effective.high < bar else "undecided"


def document_units(documents: int) -> Units:
    """One unit per document."""
    return Units.in_runs(documents, "documents")


def segment_units(segments: int) -> Units:
    """One unit per segment; neighbours may depend on each other."""
    return Units.in_runs(segments, "segments", in_order=True)


def over_documents(documents: int) -> bool:
    """Whether intervals are over documents; for a single document they are over its segments."""
    return documents > 1


def _sums(units: Units, rows: NDArray[np.int64], weights: NDArray[np.floating], states: int) -> EvennessSums:
    found = measure(weights, states)
    counted = np.isfinite(found.figures[1])
    asked = ~np.isnan(weights[:, 0, 0, :, 0])

    def add(values: NDArray[np.generic]) -> Floats:
        total = np.zeros((units.count, *values.shape[1:]))
        np.add.at(total, units.of_row[rows], values)
        return total

    return EvennessSums(
        states=states,
        units=units,
        queries=add(asked),
        segments=len(weights),
        weights=add(np.nan_to_num(weights.astype(np.float64))),
        figures=np.stack([add(np.where(counted, figure, 0.0)) for figure in found.figures]),
        counted=add(counted),
        top=add(found.top[..., None] == np.arange(states)),
    )


def _unseen(drawn: Floats, states: int) -> Floats:
    """[..., P, K + P] with NaN in slots that a query does not see."""
    p = drawn.shape[-2]
    hidden = np.arange(states + p) > states + np.arange(p)[:, None]
    return np.where(hidden, np.nan, drawn)
