"""Compare written models with their source, in processes that have only the written files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.atomic_files import scratch_folder
from model.convert import reload
from model.errors import ModelBroken
from model.micro_step import fingerprint as fingerprint_module
from model.terminal import one_line

_CLOSE = 1e-4  # share of the largest number


@dataclass(frozen=True)
class Check:
    """A written folder, and what was observed of its source."""

    folder: Path
    expected: dict[str, Any]  # of `reload.observe`
    alone: bool = False  # read it in a process that cannot import this project
    own_code: bool = False  # the folder comes with code, which is trusted


def check(checks: Sequence[Check], threads: int) -> None:
    """Read written folders again, in one fresh process for all of a kind, and compare them with their sources.

    Args:
        checks: what to read.
        threads: threads of torch, the same as when the sources were observed.

    Raises:
        ModelBroken: a folder cannot be read, or is not the same.
    """
    for alone in sorted({each.alone for each in checks}):
        some = [each for each in checks if each.alone == alone]
        for each, found in zip(some, _reloaded(some, alone, threads), strict=True):
            different = [name for name, value in each.expected.items() if not _same(found[name], value)]
            if different:
                raise ModelBroken(
                    f"the written model differs from its source in its {', '.join(different)}; nothing was kept"
                )


def _same(found: Any, expected: Any) -> bool:
    """True for equal values, and for lists of numbers that are equal up to rounding; NaN equals nothing."""
    if not (isinstance(expected, list) and expected and isinstance(expected[0], float)):
        return bool(found == expected)
    scale = max(map(abs, expected))
    return len(found) == len(expected) and all(
        abs(a - b) <= _CLOSE * scale for a, b in zip(found, expected, strict=True)
    )


def _reloaded(checks: Sequence[Check], alone: bool, threads: int) -> list[dict[str, Any]]:
    jobs = json.dumps([{"folder": str(each.folder), "own_code": each.own_code} for each in checks])
    with scratch_folder("micro_step_convert") as place:
        out = place / "found.json"
        env = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "HF_MODULES_CACHE": str(place),  # code that comes with a model is copied there
            "TMPDIR": str(place),  # so that nothing stays of a process that is killed
            "TRANSFORMERS_VERBOSITY": "error",
        }
        if not alone:
            env["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, sys.path))  # "" is this folder
        words = ["-I", str(reload.__file__)] if alone else ["-m", reload.__name__]
        kind = "alone" if alone else "with the project"
        command = [sys.executable, *words, jobs, str(fingerprint_module.__file__), str(out), kind]
        done = subprocess.run(command, cwd=place, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            why = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
            raise ModelBroken(f"the written model cannot be read in a fresh process: {one_line(why)}")
        found: list[dict[str, Any]] = json.loads(out.read_text("utf-8"))
        return found
