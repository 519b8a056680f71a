"""Run code that a model generated: each program in an isolated process of its own.

Nothing runs unless the user allowed it, and by default nothing runs if the machine cannot isolate a program. child.py
describes the isolation; this module has the limits, the verdicts, and the outer clock.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from model.errors import MicroStepError
from model.reading.json_text import parse_json

Isolation = Literal["full", "limits"]
Outcome = Literal["passed", "failed", "timed out"]
NO_SANDBOX = "no sandbox"  # as in child.py, which runs on its own
_CHILD = Path(__file__).with_name("child.py")
_GRACE_SECONDS = 10.0  # for the start and the end of a process on a busy machine
NOT_ALLOWED = (
    "this benchmark runs programs that the model generated: allow it with --allow-code-execution, which isolates each"
    " from the network, the files and the other processes of this machine"
)


@dataclass(frozen=True)
class Limits:
    cpu_seconds: int = 5
    wall_seconds: float = 15.0
    memory_bytes: int = 256 * 2**20  # address space of each process
    processes: int = 8
    file_bytes: int = 2**20  # each file; all files together 16 MiB under full isolation


@dataclass(frozen=True)
class Verdict:
    outcome: Outcome
    reason: str  # why it did not pass, for readers; it quotes the program's output, so it is not trusted

    @property
    def passed(self) -> bool:
        """True if the program reached its end without an error."""
        return self.outcome == "passed"


@dataclass(frozen=True)
class Sandbox:
    """Runs programs, one at a time."""

    isolation: Isolation = "full"
    limits: Limits = Limits()

    def check(self) -> None:
        """Check that this machine can run programs in isolation, before a model runs for hours."""
        verdict = self.run("import math\nassert math.sqrt(4) == 2")
        if not verdict.passed:
            raise MicroStepError(f"the sandbox cannot run a harmless program here: {verdict.reason}")

    def run(self, program: str) -> Verdict:
        if os.name != "posix":
            raise MicroStepError("generated programs can only be run on Linux and macOS")
        with tempfile.TemporaryDirectory(prefix="micro_step_", ignore_cleanup_errors=True) as room:
            request = {"program": program, "room": room, "parent": os.getpid()}
            request |= {"isolated": self.isolation == "full", **asdict(self.limits)}
            return _verdict(_answer(json.dumps(request).encode(), room, self.limits.wall_seconds + _GRACE_SECONDS))


def _answer(request: bytes, room: str, seconds: float) -> bytes | None:
    """Return the output of the isolated process; None if it had to be killed."""
    process = subprocess.Popen(
        [getattr(sys, "_base_executable", sys.executable), "-I", "-S", "-B", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=room,
        env={},
        close_fds=True,
        start_new_session=True,
    )
    try:
        return process.communicate(request, timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _verdict(answer: bytes | None) -> Verdict:
    if answer is None:
        return Verdict("timed out", "it could not be stopped from inside")
    try:
        reply = parse_json(answer)
    except ValueError:
        return Verdict("failed", "it killed the process that watched it")
    if reply["verdict"] == NO_SANDBOX:
        raise MicroStepError(
            f"this machine cannot isolate a program: {reply['reason']}. In a container, allow user"
            " namespaces (docker run --security-opt seccomp=unconfined, or --privileged), or run programs under"
            " limits only with --weak-sandbox: they could then reach the network and your files"
        )
    return Verdict(reply["verdict"], reply["reason"])
