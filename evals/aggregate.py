"""From the scores of samples to a benchmark's scores with their standard errors.

A sample's score is a number, whose mean is taken, or a numerator with its denominator, whose sums are divided: right
tokens over tokens, bits over bytes. Samples are drawn independently; the tokens of one are not, so that the error of a
ratio is over samples (the linearised ratio estimator, Cochran 1977, section 2.11).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Value = float | tuple[float, float]  # a number, or numerator and denominator
_MISSED = 0.05  # one-sided
EXPONENTIATED = ("perplexity",)  # ratios of nats, which a reader wants as exp


@dataclass(frozen=True)
class Average:
    """A benchmark's score."""

    value: float
    stderr: float  # NaN with one sample
    samples: int  # that have this score

    @property
    def bound(self) -> float | None:
        """Where all samples' shares are 0, or 1: what the mean is at most, or at least, at 95%; else None.

        A share whose mean is m is above 0 with probability m at least, so that n zeros have one of (1 - m)^n at most:
        for right and wrong the exact binomial bound (Clopper and Pearson 1934), where a standard error says nothing.
        """
        if self.stderr != 0 or self.value not in (0, 1):
            return None
        most = 1 - float(_MISSED ** (1 / self.samples))
        return most if self.value == 0 else 1 - most

    @property
    def whiskers(self) -> tuple[float, float]:
        """From where to where a figure's error bar goes: one standard error either way, or to the bound."""
        if self.bound is not None:
            return min(self.value, self.bound), max(self.value, self.bound)
        return self.value - self.stderr, self.value + self.stderr


def mean(values: Sequence[float]) -> Average:
    """The mean, and its standard error s / sqrt(n) with s over n - 1, as the harness has it."""
    x = np.asarray(values, dtype=np.float64)
    error = float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")
    return Average(float(x.mean()), error, len(x))


def ratio(values: Sequence[tuple[float, float]]) -> Average:
    """Sum over sum; NaN where the denominators sum to nothing."""
    x, y = np.asarray(values, dtype=np.float64).reshape(-1, 2).T
    n, whole = len(x), y.sum()
    if not whole:
        return Average(float("nan"), float("nan"), n)
    r = x.sum() / whole
    error = float(np.sqrt(n / (n - 1) * ((x - r * y) ** 2).sum()) / whole) if n > 1 else float("nan")
    return Average(float(r), error, n)


def averages(samples: Sequence[Mapping[str, Value]]) -> dict[str, Average]:
    """Every score of some samples, in the order in which they are met."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    return {name: _average(name, [sample[name] for sample in samples if name in sample]) for name in names}


def _average(name: str, values: Sequence[Value]) -> Average:
    pairs = [value for value in values if isinstance(value, tuple | list)]
    if not pairs:
        return mean([value for value in values if not isinstance(value, tuple | list)])
    found = ratio([(value[0], value[1]) for value in pairs])
    if name not in EXPONENTIATED:
        return found
    whole = float(np.exp(found.value))
    return Average(whole, whole * found.stderr, found.samples)
