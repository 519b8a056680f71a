"""Running code that a model wrote: each program in a process of its own that is shut off from everything else.

Nothing runs unless the user allowed it, and by default nothing runs where the machine cannot shut a program off. What
a program meets is described in child.py; here are the limits, the verdicts, and the clock outside.
"""

from __future__ import annotations

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

Isolation = Literal["full", "limits"]
Outcome = Literal["passed", "failed", "timed out"]
NO_SANDBOX = "no sandbox"  # as the jail says it, which runs on its own
_JAIL = Path(__file__).with_name("child.py")
_GRACE_SECONDS = 10.0  # for the start and the end of a process on a busy machine
NOT_ALLOWED = (
    "this benchmark runs programs that the model wrote: allow it with --allow-code-execution, which shuts each of them"
    " off from the network, the files and the other processes of this machine"
)


@dataclass(frozen=True)
class Limits:
    """What one program may use."""

    cpu_seconds: int = 5
    wall_seconds: float = 15.0
    memory_bytes: int = 256 * 2**20  # of address space, each process
    processes: int = 8
    file_bytes: int = 2**20  # each file; all files together 16 MiB, where isolation is full


@dataclass(frozen=True)
class Verdict:
    """What became of a program."""

    outcome: Outcome
    reason: str  # why it did not pass, for a reader; it holds what the program said, so it is not to be trusted

    @property
    def passed(self) -> bool:
        """Whether the program reached its end with no error."""
        return self.outcome == "passed"


@dataclass(frozen=True)
class Sandbox:
    """Runs programs, one at a time."""

    isolation: Isolation = "full"
    limits: Limits = Limits()

    def check(self) -> None:
        """See, before a model runs for hours, that this machine can run programs so.

        Raises:
            MicroStepError: it cannot.
        """
        found = self.run("import math\nassert math.sqrt(4) == 2")
        if not found.passed:
            raise MicroStepError(f"the sandbox does not run a harmless program here: {found.reason}")

    def run(self, program: str) -> Verdict:
        """Run a program to its end.

        Raises:
            MicroStepError: this machine does not let the program be shut off.
        """
        if os.name != "posix":
            raise MicroStepError("programs of models are run on Linux and macOS only")
        with tempfile.TemporaryDirectory(prefix="micro_step_", ignore_cleanup_errors=True) as room:
            request = {"program": program, "room": room, "parent": os.getpid()}
            request |= {"isolated": self.isolation == "full", **asdict(self.limits)}
            return _verdict(_answer(json.dumps(request).encode(), room, self.limits.wall_seconds + _GRACE_SECONDS))


def _answer(request: bytes, room: str, seconds: float) -> bytes | None:
    """What the jail says; None if it had to be killed."""
    process = subprocess.Popen(
        [getattr(sys, "_base_executable", sys.executable), "-I", "-S", "-B", str(_JAIL)],
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
        return Verdict("timed out", "it could not be ended from inside")
    try:
        said = json.loads(answer)
    except ValueError:
        return Verdict("failed", "it took the process down that watches it")
    if said["verdict"] == NO_SANDBOX:
        raise MicroStepError(
            f"this machine does not let a program be shut off: {said['reason']}. In a container, allow user"
            " namespaces (docker run --security-opt seccomp=unconfined, or --privileged), or run programs under"
            " limits alone with --weak-sandbox: they could then reach the network and your files"
        )
    return Verdict(said["verdict"], said["reason"])
