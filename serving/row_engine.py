"""What writes the answers of a server: a thread of its own, to which requests hand rows."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence

from model.decoding.row import LiveRow
from model.errors import MicroStepError


class EngineBusy(MicroStepError):
    """Too many requests are waiting."""


class RowEngine(ABC):
    """Writes rows in a thread of its own.

    Args:
        max_rows: rows that are written together.
        max_waiting: rows that wait beside these; with more, `submit` refuses.
    """

    def __init__(self, max_rows: int, max_waiting: int) -> None:
        self.max_rows, self.max_waiting = max_rows, max_waiting
        self._dropped: set[LiveRow] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step. Rows that are not over end with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    @abstractmethod
    def running(self) -> int:
        """Number of rows that are being read or written."""

    @property
    @abstractmethod
    def waiting(self) -> int:
        """Number of rows that wait."""

    def submit(self, rows: Sequence[LiveRow], lossless: bool) -> None:
        """Let rows be written; their `on_segment` is called in the engine's thread.

        Raises:
            EngineBusy: too many rows wait.
            MicroStepError: there are more rows than are ever written together, or the engine has stopped.
        """
        if len(rows) > self.max_rows:
            raise MicroStepError(f"at most {self.max_rows} answers are written at once, got a request for {len(rows)}")
        with self._changed:
            if self._closed or not self.alive:
                raise MicroStepError("the server is stopping")
            if self.running + self.waiting + len(rows) > self.max_rows + self.max_waiting:
                raise EngineBusy("too many requests are waiting; try again later")
            self._queue(rows, lossless)
            self._changed.notify()

    def drop(self, rows: Sequence[LiveRow]) -> None:
        """Take rows out that nobody waits for any more."""
        with self._changed:
            self._dropped.update(row for row in rows if not row.over)
            self._changed.notify()

    @abstractmethod
    def _queue(self, rows: Sequence[LiveRow], lossless: bool) -> None:
        """Let rows wait. The lock is held."""

    @abstractmethod
    def _write(self) -> None:
        """Write rows until the engine is closed."""

    @abstractmethod
    def _left(self) -> list[LiveRow]:
        """Return the rows that wait or are not over, and let none wait any more. The lock is held."""

    def _run(self) -> None:
        try:
            self._write()
        finally:
            with self._changed:
                self._closed = True
                left = self._left()
            fail(left, "the server has stopped")

    def _wait(self) -> bool:
        """Wait until there is something to do; False once the engine is closed."""
        with self._changed:
            while not (self._closed or self.waiting or self.running):
                self._changed.wait()
            return not self._closed


def fail(rows: Sequence[LiveRow], why: str) -> None:
    """End rows with an error."""
    for row in rows:
        row.over, row.error = True, MicroStepError(why)
        row.tell()
