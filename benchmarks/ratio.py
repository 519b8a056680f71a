"""Ratios of sums over prompts, with 95% intervals over the prompts (see analysis/intervals.py)."""

import numpy as np

from analysis.intervals import Floats, Units, quotient

Sums = tuple[Floats, Floats]  # [n] numerators, [n] denominators


def ratio(sums: Sums, base: Sums | None = None) -> list[float | None]:
    """[value, low, high] of a ratio of sums, over another such ratio of the same units if one is given.

    The ends are None where there is no interval: of too few units, or where all have the same ratio.
    """
    units = Units.in_runs(len(sums[0]), "prompts")
    own = units.sums(np.column_stack([*sums, *(base or ())]))
    left_out = units.left_out(own)
    values = quotient(left_out[:, 0], left_out[:, 1])
    if base is not None:
        values = quotient(values, quotient(left_out[:, 2], left_out[:, 3]))
    estimate = units.estimates(values, own[:, 1]).at()
    return [estimate.mean, estimate.low, estimate.high] if estimate.known else [estimate.mean, None, None]
