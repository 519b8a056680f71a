"""The queue of runs: one run has the machine at a time, since memory is estimated for one.

A run starts as a light one. Once it has had the machine for some seconds it is heavy: from then on it pauses, where it
reports its progress, while a light run waits. A run that has waited for long goes first, so that heavy ones end, too.
Among equals the visitor goes first whose last turn is longest ago. A question that somebody asks already waits for that
answer, and is not run again.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from model.errors import MicroStepError
from model.progress import Progress

POLL_SECONDS = 0.25  # between two looks at whether a waiting visitor is still there
Waiting = Callable[[str], None]  # told what a run waits for; raises where its visitor has left


@dataclass(frozen=True)
class RunLimits:
    """How long runs have the machine, and how many wait for it."""

    seconds: float = 3600.0  # of one run, without its waiting
    waiting: int = 100  # runs
    paused: int = 3  # runs, each with its memory
    light: float = 2.0  # seconds after which a run is heavy
    patience: float = 20.0  # seconds of waiting after which a run goes first
    slice: float = 5.0  # seconds that a run has the machine at least before it pauses again


class RunRefused(MicroStepError):
    """Too many runs wait, or this one took too long."""


@dataclass(eq=False)
class QueuedRun:
    """One visitor's run of one question."""

    visitor: str
    question: Hashable
    number: int  # in the order of arrival
    since: float  # when it began to wait, or got the machine
    doing: str = ""  # what the others are told
    used: float = 0.0  # seconds that it had the machine, up to `since`
    started: bool = False

    def seconds(self) -> float:
        """How long it had the machine, while it has it."""
        return self.used + time.monotonic() - self.since


class RunQueue:
    """Gives the machine to one run at a time."""

    def __init__(self, limits: RunLimits | None = None) -> None:
        self.limits = limits or RunLimits()
        self._changed = threading.Condition()
        self._running: QueuedRun | None = None
        self._waiting: list[QueuedRun] = []
        self._served: dict[str, int] = {}  # of each visitor: when the last turn was, counted in turns
        self._count = itertools.count(1)

    @contextmanager
    def turn(
        self, visitor: str, question: Hashable, known: Callable[[], bool], tell: Waiting
    ) -> Iterator[QueuedRun | None]:
        """Wait for the machine, and have it within the block.

        Args:
            visitor: who asks.
            question: equal questions are not run at the same time.
            known: whether the question has its answer by now; then the block is given None.
            tell: called while the run waits.

        Raises:
            RunRefused: too many runs wait.
        """
        with self._changed:
            if len(self._waiting) >= self.limits.waiting:
                raise RunRefused(f"{len(self._waiting)} runs wait for this machine already; try again in a minute")
            run = QueuedRun(visitor, question, next(self._count), time.monotonic())
            self._waiting.append(run)
        try:
            yield run if self._wait(run, known, tell) else None
        finally:
            self._leave(run)

    def watched(self, run: QueuedRun, progress: Progress, tell: Waiting) -> Progress:
        """The progress of a run, which pauses there for others and is ended there after its time."""

        def report(share: float) -> None:
            used = run.seconds()
            if used > self.limits.seconds:
                raise RunRefused(
                    f"The run was ended after {self.limits.seconds / 60:.0f} minutes, the limit of this server. Ask "
                    "for less at a time, or run the command that the Export menu names on a machine of your own."
                )
            if used > self.limits.light and self._must_pause(run):
                self._pause(run)
                self._wait(run, lambda: False, tell)
            progress(share)

        return report

    def _wait(self, run: QueuedRun, known: Callable[[], bool], tell: Waiting) -> bool:
        while True:
            if known():
                return False
            with self._changed:
                if self._running is None and self._order()[0] is run:
                    self._take(run)
                    return True
                self._changed.wait(POLL_SECONDS)
                if self._running is None and self._order()[0] is run:
                    continue
                message = self._message(run)
            tell(message)

    def _take(self, run: QueuedRun) -> None:
        self._waiting.remove(run)
        self._running, run.since, run.started = run, time.monotonic(), True
        self._served = {each.visitor: self._served.get(each.visitor, 0) for each in self._waiting}
        self._served[run.visitor] = next(self._count)

    def _pause(self, run: QueuedRun) -> None:
        with self._changed:
            run.used, run.since, self._running = run.seconds(), time.monotonic(), None
            self._waiting.append(run)
            self._changed.notify_all()

    def _leave(self, run: QueuedRun) -> None:
        with self._changed:
            if self._running is run:
                self._running = None
            if run in self._waiting:
                self._waiting.remove(run)
            self._changed.notify_all()

    def _must_pause(self, run: QueuedRun) -> bool:
        with self._changed:
            if time.monotonic() - run.since < self.limits.slice and run.used:
                return False
            if sum(each.started for each in self._waiting) >= self.limits.paused:
                return False
            others = [each for each in self._waiting if each.question != run.question]
            return any(self._urgent(each) for each in others)

    def _urgent(self, run: QueuedRun) -> bool:
        return run.used <= self.limits.light or time.monotonic() - run.since > self.limits.patience

    def _order(self) -> list[QueuedRun]:
        """The waiting runs: those that waited for long, light ones, heavy ones; last, those whose question is run."""
        now, taken = time.monotonic(), {run.question for run in self._waiting if run.started}
        if self._running is not None:
            taken.add(self._running.question)

        def rank(run: QueuedRun) -> tuple[bool, bool, bool, int, int]:
            return (
                run.question in taken and not run.started,
                now - run.since <= self.limits.patience,
                run.used > self.limits.light,
                self._served.get(run.visitor, 0),
                run.number,
            )

        return sorted(self._waiting, key=rank)

    def _message(self, run: QueuedRun) -> str:
        order = self._order()
        doing = f" ({self._running.doing})" if self._running is not None and self._running.doing else ""
        if run.started:
            return f"paused while shorter runs of other visitors go first{doing}"
        return f"waiting for another run on this machine{doing}, at place {order.index(run) + 1} of {len(order)}"
