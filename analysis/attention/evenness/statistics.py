"""How evenly the micro decoder uses the K states of the base that it reads: figures of a query, their means, a verdict.

Of one query in one head, w are the weights over the slots that it sees and p those over the K context states, divided
by their own sum. H = -sum p ln p. Means are over queries, so that a segment of four tokens counts three times.

Intervals are over documents (of a single text, over its segments), so that only sums per document are kept.
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
BAR = 0.75  # share of the K context states from which their use counts as fairly even

FIGURES: dict[str, tuple[str, str]] = {
    "evenness": ("evenness", "H / ln K of the weights over the K context states: 1 is perfectly even, 0 one state"),
    "effective": ("effective context states", "exp H: as many states, used evenly, would have this entropy; 1 to K"),
    "largest": ("largest share", "weight of the most attended context state over that of all K; 1 / K is even"),
    "context_share": ("share on the context", "weight on the K context states over that on all slots that are seen"),
    "evenness_all": ("evenness over all slots", "entropy over the K + j slots that are seen, over ln(K + j)"),
}


@dataclass(frozen=True)
class MeasuredEvenness:
    """Figures of Q segments; NaN (and -1 in `top`) where there is no query, or nothing fell on the context."""

    figures: Floats  # [F, Q, L, H, P] in the order of FIGURES
    top: NDArray[np.int64]  # [Q, L, H, P] the context state with the largest weight


def measure(weights: NDArray[np.floating], states: int) -> MeasuredEvenness:
    """The figures of each query.

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
    """[...] -sum p ln p over the last axis, 0 ln 0 being 0."""
    found: Floats = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
    return found


@dataclass(frozen=True)
class EvennessSums:
    """What is kept of the micro attention of a text or corpus: sums over queries, for each of U units."""

    states: int  # K
    units: Units  # what the intervals are over
    queries: Floats  # [U, P]
    segments: int  # of two tokens and more
    weights: Floats  # [U, L, H, P, K + P]
    figures: Floats  # [F, U, L, H, P]
    counted: Floats  # [U, L, H, P] queries with all figures
    top: Floats  # [U, L, H, P, K] queries of which this context state has the largest weight

    def __post_init__(self) -> None:
        u, p = self.queries.shape
        shape = self.counted.shape
        if (shape[0], shape[3]) != (u, p) or self.weights.shape != (*shape, self.states + p):
            raise ValueError(f"queries {self.queries.shape}, counted {shape} and weights {self.weights.shape} differ")

    @classmethod
    def of(
        cls, parts: Iterable[tuple[NDArray[np.int64], NDArray[np.floating]]], states: int, units: Units
    ) -> EvennessSums:
        """Add up weights [Q, L, H, P, K + P] as they come, each with the rows [Q] of `units` that they belong to.

        Raises:
            ValueError: nothing comes.
        """
        total: EvennessSums | None = None
        for rows, weights in parts:
            found = _sums(units, rows, weights, states)
            total = found if total is None else total.plus(found)
        if total is None:
            raise ValueError("there are no weights to add up")
        return total

    def plus(self, other: EvennessSums) -> EvennessSums:
        """The sums of both, unit by unit: of more segments of the same documents, or of another seed's model."""
        if self.states != other.states or self.counted.shape != other.counted.shape:
            raise ValueError(f"sums of shapes {self.counted.shape} and {other.counted.shape} cannot be added")
        names = ("queries", "segments", "weights", "figures", "counted", "top")
        both = {name: getattr(self, name) + getattr(other, name) for name in names}
        return EvennessSums(states=self.states, units=self.units, **both)

    @property
    def positions(self) -> int:
        """P: queries of the longest segment; the first predicts token 2."""
        return int(self.queries.shape[1])

    def figure(self, name: str, by: Sequence[Axis] = ()) -> Estimates:
        """The mean of a figure over queries, with its interval: an array over the axes of `by`, pooled over others."""
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
        """[K] share of queries, pooled, of which this context state has the largest weight."""
        return self._mean(self.top.sum((1, 2, 3)), self.counted.sum((1, 2, 3))[..., None])

    @cached_property
    def effective_of_mean(self) -> Estimate:
        """Of the weights averaged over queries, heads and layers, exp H: heads that prefer different states even out.

        No more than a side light: the claim is about what each head does.
        """
        context = self.weights[..., : self.states].sum((1, 2, 3))
        sums = self.units.left_out(context)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = _entropy(sums / sums.sum(-1, keepdims=True))
        return self.units.estimates(np.exp(entropy), context.sum(-1), (1.0, float(self.states))).at()

    @property
    def effective(self) -> Estimate:
        """Effective context states, pooled: what the verdict is about."""
        return self.figure("effective").at()

    def _mean(self, total: Floats, weight: Floats, within: tuple[float, float] = SHARE) -> Estimates:
        """Sum of totals over sum of weights, each [U, ...], with the interval."""
        left = self.units.left_out
        return self.units.estimates(quotient(left(total), left(weight)), weight, within)


def verdict(effective: Estimate, states: int) -> Verdict:
    """Whether "all context tokens are used fairly evenly".

    Confirmed: the interval of the effective number of context states lies at or above BAR of K. Refuted: below it.
    Undefined: there is one state, and nothing to use evenly.
    """
    if states == 1:
        return "undefined"
    bar = BAR * states
    if effective.low >= bar:
        return "confirmed"
    return "refuted" if effective.high < bar else "undecided"


def document_units(documents: int) -> Units:
    """A unit a document."""
    return Units.in_runs(documents, "documents")


def segment_units(segments: int) -> Units:
    """A unit a segment; neighbours may depend on each other."""
    return Units.in_runs(segments, "segments", in_order=True)


def over_documents(documents: int) -> bool:
    """Whether intervals are over documents: of a single one they are over its segments."""
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
    """NaN in slots that a query does not see; [..., P, K + P]."""
    p = drawn.shape[-2]
    hidden = np.arange(states + p) > states + np.arange(p)[:, None]
    return np.where(hidden, np.nan, drawn)
