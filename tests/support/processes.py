"""Processes of their own without the seconds of a start: copies of this one, which has imported torch already.

They are killed and interrupted for real. What a fresh interpreter alone can show (that a program starts, and what it
imports) needs a subprocess.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any

from model.terminal import start


def run_coroutine(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, in a thread: the browser's event loop runs in that of its tests, until they end."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, coroutine).result()


class Forked:
    """A function that runs in a copy of this process; what it prints is kept apart."""

    def __init__(self, act: Callable[..., object], *arguments: object) -> None:
        self._out, self._err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        self.process = multiprocessing.get_context("fork").Process(
            target=_run, args=(act, arguments, self._out.fileno(), self._err.fileno())
        )
        self.process.start()

    @property
    def out(self) -> str:
        """What it has printed."""
        return _written(self._out)

    @property
    def err(self) -> str:
        """What it has printed to standard error."""
        return _written(self._err)

    def running(self) -> bool:
        return self.process.is_alive()

    def until(self, holds: Callable[[], bool], timeout: float = 120) -> None:
        """Wait until something holds, and fail where the process ends before."""
        end = time.monotonic() + timeout
        while not holds():
            assert self.running(), self.err
            assert time.monotonic() < end, "the process makes no progress"
            time.sleep(0.002)

    def send(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.process.pid or 0, number)

    def ended(self, timeout: float = 120) -> int:
        """The exit code, or minus the signal that killed it, once it has ended."""
        self.process.join(timeout)
        if self.running():
            self.process.kill()
            raise AssertionError("the process does not end")
        return int(self.process.exitcode or 0)

    def killed(self) -> int:
        """Kill it; minus the signal, or the exit code of a process that had ended before."""
        self.process.kill()
        return self.ended()


def program(name: str, *words: object) -> Forked:
    """Start `micro-step`, or `python -m NAME` as it was before, with these words."""
    return Forked(_main, name, *map(str, words))


def _main(name: str, *words: str) -> None:
    sys.argv = [name, *words]
    start("" if name == "micro-step" else name)


def _run(act: Callable[..., object], arguments: tuple[object, ...], out: int, err: int) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = (open(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))  # noqa: SIM115
    act(*arguments)


def _written(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), size, 0).decode(errors="replace")
