"""What each segmentation strategy would give on prepared responses, at its default parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.prepared import Prepared
from data.training_rows import cut
from model.segmentation.segment import find_rule


@dataclass(frozen=True)
class StrategyRow:
    """One strategy on all responses."""

    strategy: str
    mean_length: float
    """Learnt tokens over the macro steps that they take."""
    shares: tuple[float, ...]
    """Of the segments, those of 1 .. M tokens."""


def strategy_rows(prepared: Prepared, max_length: int) -> list[StrategyRow]:
    """A row for each rule that the stored scores suffice for."""
    found = []
    for name in prepared.source.rules():
        rows = cut(prepared, name, {}, max_length).rows
        starts = np.flatnonzero(rows.starts & rows.learnt)
        ends = np.append(starts[1:], len(rows.ids))
        row_end = rows.offsets[np.searchsorted(rows.offsets, starts, side="right")]
        lengths = np.minimum(ends, row_end) - starts
        parameters = ", ".join(f"{p.name} {p.default:g}" for p in find_rule(name).parameters)
        shares = tuple(float((lengths == n).mean()) for n in range(1, max_length + 1))
        found.append(StrategyRow(f"{name}({parameters})", float(lengths.mean()), shares))
    return found
