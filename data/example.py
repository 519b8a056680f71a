"""One example of training data."""

from __future__ import annotations

from dataclasses import dataclass

from model.text.document import PLAIN, Message


@dataclass(frozen=True)
class Example:
    """A conversation whose last turn is to be learnt, a prompt that still wants an answer, or a plain text."""

    source: str
    number: int
    """Of the record, or the piece, in its source."""
    messages: tuple[Message, ...]
    ended: bool = True
    """The last turn is whole; False where it was cut off, and its end is not to be learnt."""
    held_out: bool = False
    repeat: int = 1
    """How often it comes in an epoch."""

    @property
    def plain(self) -> bool:
        """Whether it is a text without roles."""
        return self.messages[0].role == PLAIN

    @property
    def response(self) -> str:
        """The text, or the last turn if it is the assistant's."""
        last = self.messages[-1]
        return last.content if last.role in (PLAIN, "assistant") else ""

    @property
    def prompt(self) -> str:
        """All turns before the response."""
        before = self.messages if not self.response else self.messages[:-1]
        return "\n".join(message.content for message in before)
