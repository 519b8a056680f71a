"""pass@k: how often at least one of k programs passes, estimated without bias from n of them.

With c of n passing, 1 - C(n - c, k) / C(n, k): Chen et al. 2021, arXiv 2107.03374, section 2.1.
"""

from fractions import Fraction
from math import comb

KS = (1, 10, 100)


def pass_at_k(n: int, c: int, k: int) -> float:
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n = {n}, c = {c}, k = {k}")
    return float(1 - Fraction(comb(n - c, k), comb(n, k)))


def passes(outcomes: list[bool]) -> dict[str, float]:
    """Return pass@1, pass@10 and pass@100 of one problem, if there are enough programs."""
    return {f"pass@{k}": pass_at_k(len(outcomes), sum(outcomes), k) for k in KS if k <= len(outcomes)}
