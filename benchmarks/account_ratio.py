"""Ratios of sums over prompts, with 95% bootstrap intervals over the prompts."""

from __future__ import annotations

import numpy as np

from analysis.corpus.intervals import Floats, Units, estimates, quotient

Sums = tuple[Floats, Floats]  # [n] what is divided, [n] by what


def ratio(over: Sums, base: Sums | None = None) -> list[float]:
    """Ratio of sums, over another such ratio of the same units if given: the value, and the ends of its interval."""
    n = len(over[0])
    draws = Units(np.arange(n), n, "prompts", 1).resampled(np.column_stack([*over, *(base or ())]))
    found = quotient(draws[:, 0], draws[:, 1])
    told = estimates(found if base is None else found / quotient(draws[:, 2], draws[:, 3])).at()
    return [told.mean, told.low, told.high]
