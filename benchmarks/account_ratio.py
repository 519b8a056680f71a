"""Ratios of sums over prompts, with 95% intervals over the prompts (see analysis/intervals.py)."""

from __future__ import annotations

import numpy as np

from analysis.intervals import Floats, Units, quotient

Sums = tuple[Floats, Floats]  # [n] what is divided, [n] by what


def ratio(over: Sums, base: Sums | None = None) -> list[float | None]:
    """Ratio of sums, over another such ratio of the same units if given: the value, and the ends of its interval.

    None for ends that there are not: of too few prompts, or where all have the same ratio.
    """
    units = Units.in_runs(len(over[0]), "prompts")
    own = units.sums(np.column_stack([*over, *(base or ())]))
    sums = units.left_out(own)
    found = quotient(sums[:, 0], sums[:, 1])
    told = units.estimates(found if base is None else quotient(found, quotient(sums[:, 2], sums[:, 3])), own[:, 1]).at()
    return [told.mean, told.low, told.high] if told.known else [told.mean, None, None]
