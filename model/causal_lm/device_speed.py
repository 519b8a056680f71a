"""How fast this machine multiplies."""

from __future__ import annotations

import time
from functools import cache

SIDE = 768  # of the matrices: about what a small model multiplies


@cache
def multiplications_per_second() -> float:
    """The best of a few products of two float32 matrices on the CPU, which take a few milliseconds each."""
    import torch

    a, best = torch.rand(SIDE, SIDE), float("inf")
    for _ in range(6):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    return float(SIDE**3 / best)
