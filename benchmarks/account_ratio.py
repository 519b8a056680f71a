"""Ratios of sums over prompts, with 95% bootstrap intervals over the prompts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.bootstrap import LEVEL, RESAMPLES

Floats = NDArray[np.float64]
Sums = tuple[Floats, Floats]  # [n] what is divided, [n] by what


def ratio(over: Sums, base: Sums | None = None) -> list[float]:
    """Ratio of sums, over another such ratio of the same units if given: the value, and the ends of its interval."""
    n = len(over[0])
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    weights = np.vstack([np.ones(n), draws])

    def of(pair: Sums) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = (weights @ pair[0]) / (weights @ pair[1])
            return found

    found = of(over) if base is None else of(over) / of(base)
    resampled = found[1:][np.isfinite(found[1:])]
    low, high = (
        np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if n > 1 and len(resampled) else (np.nan,) * 2
    )
    return [float(found[0]), float(low), float(high)]
