"""The tables of micro attention: weights, statistics, shares and segments.

A micro position is that of the predicted token: 2 is a segment's second token, the first that the micro decoder writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.attention.evenness.statistics import AXES, BAR, FIGURES, UNDEFINED, Axis, EvennessSums, measure, verdict
from analysis.attention.micro.result import MicroAttention, context_names
from analysis.intervals import Estimates, quotient
from analysis.score_registry import significant

LEVELS: dict[str, tuple[Axis, ...]] = {
    "pooled": (),
    "layer": ("layer",),
    "position": ("position",),
    "head": ("layer", "head"),
    "query": ("layer", "head", "position"),
}
"""The levels of the table of statistics, and the axes that each is not pooled over."""
_COUNTS_FROM = {
    "layer": 0,
    "head": 0,
    "position": 2,
}  # positions are tokens of a segment, of which the base writes the first


def slot_names(found: MicroAttention, segment: int | None) -> list[str]:
    """The K + P names of slots: context states by their base layer, then the segment's tokens, or their places."""
    own = [f"token {i}" for i in range(1, found.positions + 1)]
    if segment is not None:
        own = [f"token {i}: {text}" for i, text in enumerate(found.tokens(segment)[: found.positions], 1)]
        own += [f"token {i}" for i in range(len(own) + 1, found.positions + 1)]
    return [*context_names(found.micro.context_layers), *own]


def weight_table(found: MicroAttention, segment: int | None = None) -> pd.DataFrame:
    """A row for each layer, head, micro position and visible slot: the weight in one segment, or the mean over all.

    Layers and heads count from 0, as options do.

    `low` and `high` bound the 95% interval of the mean; they are missing for one segment, or if there are too few.
    """
    if segment is None:
        every = found.sums.mean_weights
    else:
        found.check(segment, 0)
        nothing = np.full(found.weights.shape[1:], np.nan)
        every = Estimates(found.weights[segment].astype(np.float64), nothing, nothing)
    names = slot_names(found, segment)
    table = weights_of(every, names)
    table.insert(0, "segment", pd.array([pd.NA if segment is None else segment + 1] * len(table), dtype="Int64"))
    return table


def weights_of(every: Estimates, names: Sequence[str], axes: Sequence[Axis] = AXES) -> pd.DataFrame:
    """A row for each known estimate of [L, H, P, K + P], or of those axes and slots."""
    *places, slot = at = np.nonzero(~np.isnan(every.mean))
    columns: dict[str, Any] = {axis: place + _COUNTS_FROM[axis] for axis, place in zip(axes, places, strict=True)}
    columns["slot"] = pd.Series([names[i] for i in slot.tolist()], dtype="str")
    return pd.DataFrame({**columns, "weight": every.mean[at], "low": every.low[at], "high": every.high[at]})


def figure_table(sums: EvennessSums, levels: Sequence[str] = tuple(LEVELS)) -> pd.DataFrame:
    """A row for each level, place and statistic: the mean, and low and high of its 95% interval."""
    parts = []
    for level in levels:
        by = LEVELS[level]
        for name in FIGURES:
            every = sums.figure(name, by)
            shape = every.mean.shape
            places = np.array(list(product(*map(range, shape))), dtype=np.int64).reshape(every.mean.size, len(by))
            part = pd.DataFrame({"level": [level] * len(places)})
            for axis in AXES:
                part[axis] = _places(places, by, axis)
            part["figure"] = name
            for key in ("mean", "low", "high"):
                part[key] = getattr(every, key).reshape(-1)
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def _places(places: NDArray[np.int64], by: tuple[Axis, ...], axis: Axis) -> pd.api.extensions.ExtensionArray:
    """The numbers on an axis as shown; missing if the axis is pooled over."""
    if axis not in by:
        return pd.array([pd.NA] * len(places), dtype="Int64")
    return pd.array(places[:, by.index(axis)] + _COUNTS_FROM[axis], dtype="Int64")


def slot_table(found: MicroAttention) -> pd.DataFrame:
    """A row for each micro position and slot: the mean weight over queries, heads and layers, with its interval."""
    return weights_of(found.sums.slot_shares, slot_names(found, None), ("position",))


def segment_table(found: MicroAttention) -> pd.DataFrame:
    """A row for each token, with the evenness and the effective context states of its segment.

    `segment` counts segments of two tokens and more, and is missing in others.
    """
    evenness, effective = segment_figures(found)
    segment = found.segment_of
    inside, at = segment >= 0, np.maximum(segment, 0)
    shown = pd.array(segment + 1, dtype="Int64")
    shown[~inside] = pd.NA
    return pd.DataFrame(
        {
            "position": np.arange(len(segment)),
            "token": pd.Series(found.encoded.display, dtype="str"),
            "start": found.encoded.start,
            "end": found.encoded.end,
            "starts_segment": found.starts,
            "segment": shown,
            "evenness": np.where(inside, evenness[at], np.nan),
            "effective": np.where(inside, effective[at], np.nan),
        }
    )


def segment_figures(found: MicroAttention) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[Q] mean evenness and [Q] mean effective context states of each segment, over layers, heads and queries.

    NaN if undefined: one context state has no evenness.
    """
    figures = measure(found.weights, found.states).figures[:2]
    q = len(found.first)
    with np.errstate(invalid="ignore"):
        flat = figures.reshape(2, q, -1)
        evenness, effective = quotient(np.nansum(flat, -1), np.isfinite(flat).sum(-1).astype(np.float64))
    return evenness, effective


def finding(sums: EvennessSums) -> str:
    """One sentence: the effective number of context states, and whether the claim holds."""
    n, k = sums.effective, sums.states
    if k == 1:
        return f"{UNDEFINED}."
    meaning = {
        "confirmed": "the claim holds here",
        "refuted": "the claim does not hold here",
        "undecided": "the interval contains the threshold, so nothing is decided"
        if n.known
        else "there are too few segments for an interval, so nothing is decided",
    }.get(verdict(n, k))
    return (
        f"{significant(n.mean)} effective context states of {k} ({n.ends()}); "
        f"fairly even would be {significant(BAR * k)} or more: {meaning}."
    )
