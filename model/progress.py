"""How a run says how far it is. Whoever listens may raise to stop the run."""

import time
from collections.abc import Callable
from contextvars import ContextVar

Progress = Callable[[float], None]  # called with the share done, 0 to 1
Tell = Callable[[str, float | None], None]  # called with what is being done, and the share done (None: unknown)
INTERVAL = ContextVar("INTERVAL", default=1.0)  # seconds between two messages of a meter; a command line sets its own


def part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """The progress of a part of a run, which goes from share `begin` to share `end` of the whole."""
    return None if progress is None else lambda share: progress(min(1.0, begin + (end - begin) * share))


def silent(message: str, share: float | None) -> None:
    """Tell nobody."""


class Meter:
    """Counts what a long run has done, to say at most once an interval how fast it is and how long it will take."""

    def __init__(self, done: int = 0) -> None:
        self.done, self.before = done, done
        self._began = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        return max(time.monotonic() - self._began, 1e-9)

    def due(self) -> bool:
        """True if it is time for a message; the next one is due an interval later."""
        now = time.monotonic()
        if now - self._told < INTERVAL.get():
            return False
        self._told = now
        return True

    def left(self, total: float) -> str:
        """How long the rest of `total` will take at the speed so far; empty while nothing was done."""
        if self.done == self.before:
            return ""
        seconds = max(0, round((total - self.done) * self.seconds / (self.done - self.before)))
        return f", about {seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d} left"
