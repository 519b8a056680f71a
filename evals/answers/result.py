"""The value read from a generated answer, or the reason why none was read. This module knows no benchmark."""

import re
from dataclasses import dataclass

_REASONING = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL)
_REASONING_END = re.compile(r"</(?:think|thinking|reasoning)>")
_REASONING_START = re.compile(r"<(?:think|thinking|reasoning)>")

EMPTY = "nothing was written"
ONLY_REASONING = "it ended within its reasoning, before an answer"


@dataclass(frozen=True)
class Read:
    value: str | None
    reason: str | None = None  # why there is no value

    @property
    def valid(self) -> bool:
        return self.value is not None


def without_reasoning(text: str) -> Read:
    """Return the text without the part between <think> and </think>; no value if no answer follows.

    A template may have put the opening tag into the prompt, so the text may hold only the closing one.
    """
    if not text.strip():
        return Read(None, EMPTY)
    rest = _REASONING.sub("", text)
    rest = _REASONING_END.split(rest)[-1]
    rest = _REASONING_START.split(rest, maxsplit=1)[0]
    return Read(rest) if rest.strip() else Read(None, ONLY_REASONING)
