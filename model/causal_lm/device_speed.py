"""How fast this machine multiplies, and the clocks that say so."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SIDE = 768  # of the matrices: about what a small model multiplies


def clock_of(device: torch.device) -> Callable[[], float]:
    """Return the clock of what runs on a device: on a CPU processor time, which other programs hardly disturb."""
    return time.process_time if device.type == "cpu" else time.perf_counter


def wait_for(device: torch.device | str) -> None:
    """Wait until an accelerator has done what it was given, before a clock is read."""
    if str(device).startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


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
