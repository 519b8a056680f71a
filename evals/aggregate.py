"""Combine the scores of samples into a benchmark's scores with standard errors.

A sample's score is a number, whose mean is taken, or a numerator with its denominator, whose sums are divided: correct
tokens over tokens, bits over bytes. Samples are independent, but the tokens of one are not, so the error of a ratio is
taken over samples (the linearised ratio estimator, Cochran 1977, section 2.11).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Value = float | tuple[float, float]  # a number, or numerator and denominator
_ERROR_PROBABILITY = 0.05  # one-sided error probability
EXPONENTIATED = ("perplexity",)  # ratios of nats, shown as exp


@dataclass(frozen=True)
class Average:
    value: float
    stderr: float  # NaN with one sample
    samples: int  # number of samples that have this score

    @property
    def bound(self) -> float | None:
        """If all shares are 0 (or 1), the 95% upper (or lower) bound of the mean; else None.

        A share whose mean is m is above 0 with probability at least m, so n zeros have probability at most (1 - m)^n.
        For right and wrong answers this is the exact binomial bound (Clopper and Pearson 1934), where a standard error
        says nothing.
        """
        if self.stderr != 0 or self.value not in (0, 1):
            return None
        upper = 1 - float(_ERROR_PROBABILITY ** (1 / self.samples))
        return upper if self.value == 0 else 1 - upper

    @property
    def whiskers(self) -> tuple[float, float]:
        """Ends of a figure's error bar: one standard error either way, or the bound."""
        if self.bound is not None:
            return min(self.value, self.bound), max(self.value, self.bound)
        return self.value - self.stderr, self.value + self.stderr


def mean(values: Sequence[float]) -> Average:
    """Return the mean and its standard error s / sqrt(n), with s over n - 1, as the harness does."""
    x = np.asarray(values, dtype=np.float64)
    error = float(x.std(ddof=1) / np.sqrt(len(x))) if len(x) > 1 else float("nan")
    return Average(float(x.mean()), error, len(x))


def ratio(values: Sequence[tuple[float, float]]) -> Average:
    """Return the ratio of sums; NaN if the denominators sum to 0."""
    x, y = np.asarray(values, dtype=np.float64).reshape(-1, 2).T
    n, whole = len(x), y.sum()
    if not whole:
        return Average(float("nan"), float("nan"), n)
    r = x.sum() / whole
    error = float(np.sqrt(n / (n - 1) * ((x - r * y) ** 2).sum()) / whole) if n > 1 else float("nan")
    return Average(float(r), error, n)


def averages(samples: Sequence[Mapping[str, Value]]) -> dict[str, Average]:
    """Return every score of some samples, in the order of their first appearance."""
    names = dict.fromkeys(name for sample in samples for name in sample)
    return {name: _average(name, [sample[name] for sample in samples if name in sample]) for name in names}


def _average(name: str, values: Sequence[Value]) -> Average:
    pairs = [value for value in values if isinstance(value, tuple | list)]
    if not pairs:
        return mean([value for value in values if not isinstance(value, tuple | list)])
    combined = ratio([(value[0], value[1]) for value in pairs])
    if name not in EXPONENTIATED:
        return combined
    whole = float(np.exp(combined.value))
    return Average(whole, whole * combined.stderr, combined.samples)
