"""Progress of scoring a corpus: how far it is, how fast, and how long it will take."""

from __future__ import annotations

import time

from data.corpus.windows import TokenWindow
from model.progress import Tell


class ScoringProgress:
    """Reports how far a run is, how fast, and how long it will take."""

    expected: float | None = None  # number of all tokens

    def __init__(self, tell: Tell, interval: float, what: str, done: int) -> None:
        self.what, self.done, self.before = what, done, done
        self._tell, self._interval = tell, interval
        self._start = self._told = time.monotonic()

    def expect(self, last: TokenWindow, tokens: int, limit: int | None) -> None:
        """Estimate the number of all tokens from what was read up to the last row of a shard with `tokens` tokens."""
        rest = last.document_tokens - last.at - last.n - last.left_out  # in other windows of the same document
        total = (self.done + tokens + rest) / last.share if last.share else None
        self.expected = min((bound for bound in (total, limit) if bound is not None), default=None)

    def add(self, tokens: int) -> None:
        """Count a batch, and report if it is time."""
        self.done += tokens
        now = time.monotonic()
        if now - self._told < self._interval:
            return
        self._told = now
        rate = (self.done - self.before) / max(now - self._start, 1e-9)
        message = f"{self.what}: {self.done:,} tokens, {rate:,.0f} tokens/s"
        if self.expected is None:
            return self._tell(message, None)
        left = max(0, round((self.expected - self.done) / rate))
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        self._tell(f"{message}, about {clock} left", min(1.0, self.done / self.expected))
