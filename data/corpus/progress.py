"""Progress of scoring a corpus: how far it is, how fast, and how long it will take."""

from data.corpus.windows import TokenWindow
from model.progress import Meter, Tell


class ScoringProgress(Meter):
    """Counts the tokens of a run."""

    expected: float | None = None  # number of all tokens

    def __init__(self, tell: Tell, what: str, done: int) -> None:
        super().__init__(done)
        self.what, self._tell = what, tell

    def expect(self, last: TokenWindow, tokens: int, limit: int | None) -> None:
        """Estimate the number of all tokens from what was read up to the last row of a shard with `tokens` tokens."""
        rest = last.document_tokens - last.at - last.n - last.left_out  # in other windows of the same document
        total = (self.done + tokens + rest) / last.share if last.share else None
        self.expected = min((bound for bound in (total, limit) if bound is not None), default=None)

    def add(self, tokens: int) -> None:
        """Count a batch, and report if it is time."""
        self.done += tokens
        if not self.due():
            return
        message = f"{self.what}: {self.done:,} tokens, {(self.done - self.before) / self.seconds:,.0f} tokens/s"
        if self.expected is None:
            self._tell(message, None)
        else:
            self._tell(message + self.left(self.expected), min(1.0, self.done / self.expected))
