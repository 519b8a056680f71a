"""How a run says how far it is. Whoever listens may raise to stop the run."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float], None]  # called with the share done, 0 to 1
Tell = Callable[[str, float | None], None]  # called with what is being done, and the share done (None: unknown)


def part(progress: Progress | None, begin: float, end: float) -> Progress | None:
    """The progress of a part of a run, which goes from share `begin` to share `end` of the whole."""
    return None if progress is None else lambda share: progress(min(1.0, begin + (end - begin) * share))


def silent(message: str, share: float | None) -> None:
    """Tell nobody."""
