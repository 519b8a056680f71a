"""How time and memory are measured, whatever is measured. Knows no model."""

from __future__ import annotations

import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from model.errors import MicroStepError

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Result = TypeVar("Result")


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of a module in a new interpreter.

    Raises:
        MicroStepError: the process died, as the kernel's out-of-memory killer makes it.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise MicroStepError(
                "a measuring process was killed, most likely for its memory; use fewer tokens"
            ) from None


def in_turn(turn: int, count: int) -> list[int]:
    """The order of `count` things in a round: each comes first in its turn."""
    return [(turn + i) % count for i in range(count)]


def seconds_of(run: Callable[[], Result]) -> tuple[float, Result]:
    """Wall-clock seconds of a call, and what it gave."""
    start = time.perf_counter()
    found = run()
    return time.perf_counter() - start, found


def settle(device: str) -> None:
    """Wait until an accelerator has done what it was given, before a clock is read."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def device_name(device: str) -> str:
    """What a device is called: of cuda, the card."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return device


def spread(values: Sequence[float] | None) -> dict[str, Any] | None:
    """Median, smallest, largest and all values; None of none."""
    if not values:
        return None
    return {"median": median(values), "min": min(values), "max": max(values), "each": list(values)}


def version(package: str) -> str | None:
    """The installed version, if it is."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return None


def resident(device: str = "cpu") -> int:
    """Resident bytes now, on cuda those of the device. The high-water mark starts anew from here, on cuda and Linux."""
    import psutil

    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))

    if _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")
        return int(psutil.Process().memory_info().rss)
    return highest()


def highest(device: str = "cpu") -> int:
    """Most resident bytes: since `resident` on cuda and Linux, since the start elsewhere (which may hide a growth)."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if _CLEAR.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
        if found:
            return 1024 * int(found[1])
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
