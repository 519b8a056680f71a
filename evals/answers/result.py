"""What was read out of a written answer, or why nothing was. Knows no benchmark."""

from __future__ import annotations

import re
from dataclasses import dataclass

_REASONING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_REASONING_END = re.compile(r"</(?:think|thinking|reasoning)>")
_REASONING_START = re.compile(r"<(?:think|thinking|reasoning)>")

EMPTY = "nothing was written"
ONLY_REASONING = "it ends inside its reasoning, before an answer"


@dataclass(frozen=True)
class Read:
    """What was read out of a text."""

    value: str | None
    reason: str | None = None  # why there is none

    @property
    def valid(self) -> bool:
        """Whether there is a value."""
        return self.value is not None


def without_reasoning(text: str) -> Read:
    """The text without what a model wrote between <think> and </think>; no value where no answer follows.

    A template may have written the first mark as part of the prompt, so that the text holds the closing one alone.
    """
    if not text.strip():
        return Read(None, EMPTY)
    said = _REASONING.sub("", text)
    said = _REASONING_END.split(said)[-1]
    said = _REASONING_START.split(said, maxsplit=1)[0]
    return Read(said) if said.strip() else Read(None, ONLY_REASONING)
