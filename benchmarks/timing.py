"""How time and memory are measured, whatever is measured. Knows no model."""

import gc
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from model.causal_lm.device_speed import wait_for
from model.errors import MicroStepError
from model.progress import Tell

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")

Result = TypeVar("Result")


def in_fresh_process(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function of a module in a new interpreter."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            raise MicroStepError(
                "a measuring process was killed, most likely for its memory; use fewer tokens"
            ) from None


@dataclass(frozen=True)
class Method:
    computes: str
    run: Callable[[], object]
    warm_up: Callable[[], object]  # after it mapped weights are read, and kernels made
    note: str | None = None  # why it is not run, if so


@dataclass(frozen=True)
class MethodSet:
    """Methods that are ready to run in this process, the first one as the base of ratios."""

    facts: dict[str, Any]
    methods: dict[str, Method]
    device: str = "cpu"


Prepare = Callable[..., MethodSet]  # loads what is measured; a function of a module


def measure_methods(
    title: str,
    prepare: Prepare,
    arguments: Sequence[Any],
    repeats: int,
    tell: Tell,
    memory: bool = True,
) -> dict[str, Any]:
    """The facts, and a row a method: seconds, and their ratio to the first's in the same round; peak bytes.

    All methods are timed in one fresh process. The memory of each is measured in a process of its own.

    """
    tell(f"{title}: timing {repeats} rounds", None)
    report: dict[str, Any] = in_fresh_process(timed, prepare, arguments, repeats)
    for row in report["rows"]:
        if memory and row["seconds"] is not None:
            tell(f"{title}: memory of {row['method']}", None)
            row["peak_bytes"] = in_fresh_process(peak, prepare, arguments, row["method"])
    return report


def timed(prepare: Prepare, arguments: Sequence[Any], repeats: int) -> dict[str, Any]:
    """All but the peaks; see `measure_methods`."""
    measured = prepare(*arguments)
    ready = {name: method for name, method in measured.methods.items() if method.note is None}
    for method in ready.values():
        method.warm_up()

    def run(method: Method) -> Callable[[], tuple[float, float]]:
        def clocked() -> tuple[float, float]:
            before = time.process_time()
            seconds, _ = seconds_of(method.run, measured.device)
            return seconds, time.process_time() - before

        return clocked

    both = in_rounds({name: run(method) for name, method in ready.items()}, repeats)
    seconds, cpu = ({name: [pair[i] for pair in pairs] for name, pairs in both.items()} for i in range(2))
    first = next(iter(measured.methods))
    rows = [
        {
            "method": name,
            "computes": method.computes,
            "note": method.note,
            "seconds": spread(seconds.get(name)),
            "ratio": ratios(seconds.get(name), seconds[first]),
            "cpu_ratio": ratios(cpu.get(name), cpu[first]),
            "peak_bytes": None,
        }
        for name, method in measured.methods.items()
    ]
    return {**measured.facts, "repeats": repeats, "rows": rows}


def peak(prepare: Prepare, arguments: Sequence[Any], name: str) -> int:
    """Bytes by which memory grows at a method's peak over what is loaded and warmed up."""
    measured = prepare(*arguments)
    measured.methods[name].warm_up()
    return peak_growth(measured.methods[name].run, measured.device)


def in_turn(turn: int, count: int) -> list[int]:
    """The order of `count` things in a round: each comes first in its turn."""
    return [(turn + i) % count for i in range(count)]


def in_rounds(runs: Mapping[str, Callable[[], Result]], repeats: int) -> dict[str, list[Result]]:
    """What each run gives in every round; all run once a round in turning order, so that disturbances fall on all."""
    names = list(runs)
    given: dict[str, list[Result]] = {name: [] for name in names}
    for turn in range(repeats):
        for name in (names[i] for i in in_turn(turn, len(names))):
            gc.collect()
            given[name].append(runs[name]())
    return given


def seconds_of(
    run: Callable[[], Result], device: str = "cpu", now: Callable[[], float] = time.perf_counter
) -> tuple[float, Result]:
    """Seconds of a call until the device has done all, by the clock `now`, and what the call gave."""
    wait_for(device)
    start = now()
    given = run()
    wait_for(device)
    return now() - start, given


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


def ratios(values: Sequence[float] | None, base: Sequence[float]) -> dict[str, Any] | None:
    """The spread of ratios that are taken round by round; None of none."""
    return spread([a / b for a, b in zip(values, base, strict=True)]) if values else None


def environment(*packages: str) -> dict[str, Any]:
    """The threads of torch, and the installed versions of packages; None of one that is not installed."""
    import torch

    return {"threads": torch.get_num_threads(), "versions": {package: _version(package) for package in packages}}


def _version(package: str) -> str | None:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return None


def peak_growth(run: Callable[[], object], device: str = "cpu") -> int:
    """Bytes by which memory grows at its peak while a call runs."""
    gc.collect()
    before = _resident(device)
    run()
    return max(0, _highest(device) - before)


def _resident(device: str = "cpu") -> int:
    """Resident bytes now, on cuda those of the device. The high-water mark starts anew from here, on cuda and Linux."""
    import psutil

    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return int(torch.cuda.memory_allocated(device))

    if _CLEAR.exists():
        _CLEAR.write_text("5", encoding="ascii")
        return int(psutil.Process().memory_info().rss)
    return _highest()


def _highest(device: str = "cpu") -> int:
    """Most resident bytes: since `_resident` on cuda and Linux, since the start elsewhere (which may hide a growth)."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    if _CLEAR.exists():
        peak = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"))
        if peak:
            return 1024 * int(peak[1])
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
