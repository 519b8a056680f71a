"""Run code that a model generated: each program in an isolated process of its own.

Nothing runs unless the user allowed it, and by default nothing runs if the machine cannot isolate a program. child.py
describes the isolation; this module has the limits, the verdicts, and the outer clock.
"""

import base64
import json
import os
import platform
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from evals.sandbox.system_calls import MACHINES, filter_program
from model.atomic_files import scratch_folder
from model.errors import MicroStepError
from model.reading.json_text import parse_json

Isolation = Literal["full", "limits"]
Outcome = Literal["passed", "failed", "timed out"]
NO_SANDBOX = "no sandbox"  # as in child.py, which runs on its own
_CHILD, _CALLS = (Path(__file__).with_name(name) for name in ("child.py", "calls.py"))
_GRACE_SECONDS = 10.0  # for the start and the end of a process on a busy machine
NOT_ALLOWED = (
    "this benchmark runs programs that the model generated: allow it with --allow-code-execution, which isolates each"
    " from the network, the files and the other processes of this machine"
)


@dataclass(frozen=True)
class Limits:
    cpu_seconds: int = 5
    wall_seconds: float = 15.0
    memory_bytes: int = 256 * 2**20  # address space of each process, and memory of all together
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

    def check(self) -> tuple[str, ...]:
        """Check that this machine can run programs in isolation, before a model runs for hours.

        Returns:
            What this machine lacks of the protection that is described, in sentences.
        """
        program, tests = "import math\ndef root(x):\n    return math.sqrt(x)\n", "assert root(4) == 2"
        reply = self._reply(program, tests, None)
        if reply["verdict"] != "passed":
            raise MicroStepError(f"the sandbox cannot run a harmless program here: {reply['reason']}")
        return tuple(reply["lacking"])

    def run(self, program: str, tests: str = "", function: str | None = None) -> Verdict:
        """Run a program, and its tests in a process that the program cannot reach.

        Args:
            program: what the model wrote.
            tests: trusted code. The names that it does not define are the program's. Without tests a program passes
                if it says that it reached its end.
            function: a name in the tests that is the program's even if Python has it too, as `sum`.
        """
        reply = self._reply(program, tests, function)
        return Verdict(reply["verdict"], reply["reason"])

    def _reply(self, program: str, tests: str, function: str | None) -> dict[str, Any]:
        if os.name != "posix":
            raise MicroStepError("generated programs can only be run on Linux and macOS")
        known = platform.machine() in MACHINES and sys.maxsize > 2**32
        with scratch_folder("micro_step_sandbox") as room:
            request = {"program": program, "room": str(room), "parent": os.getpid(), "calls": str(_CALLS)}
            request |= {"isolated": self.isolation == "full", **asdict(self.limits)}
            request["filter"] = base64.b64encode(filter_program()).decode() if known else None
            parts = [json.dumps(part).encode() for part in (request, {"tests": tests, "function": function})]
            given = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
            return _read_reply(_answer(given, str(room), self.limits.wall_seconds + _GRACE_SECONDS))


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


def _read_reply(answer: bytes | None) -> dict[str, Any]:
    if answer is None:
        return {"verdict": "timed out", "reason": "it could not be stopped from inside"}
    try:
        reply: dict[str, Any] = parse_json(answer)
    except ValueError:
        return {"verdict": "failed", "reason": "it killed the process that watched it"}
    if reply["verdict"] == NO_SANDBOX:
        raise MicroStepError(
            f"this machine cannot isolate a program: {reply['reason']}. In a container, allow user"
            " namespaces (docker run --security-opt seccomp=unconfined, or --privileged), or run programs under"
            " limits only with --weak-sandbox: they could then reach your files"
        )
    return reply
