"""A few bundled example texts, so that there is something to look at before the user types anything.

Each is a plain text or a conversation, listed in ``index.json`` with its origin. This module knows no tokenizer.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from model.errors import TextError

KINDS = ("prose", "code", "maths", "dialogue", "multilingual")
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class SampleText:
    """One example; ``messages`` are (role, content) pairs, and a plain text has the single role ``text``."""

    name: str
    chip: str  # a short title
    title: str
    kind: str  # one of KINDS
    origin: str  # author and licence
    messages: tuple[tuple[str, str], ...]

    @property
    def is_chat(self) -> bool:
        """True for a conversation, to be shown under a model's chat template."""
        return self.messages[0][0] != "text"

    @property
    def text(self) -> str:
        """The contents without roles, with a blank line between messages."""
        return "\n\n".join(content for _, content in self.messages)


@cache
def samples() -> tuple[SampleText, ...]:
    """Return the bundled examples, in the order in which they are offered."""
    folder = files(__name__)
    loaded = []
    for entry in json.loads(folder.joinpath("index.json").read_text(encoding="utf-8")):
        content = folder.joinpath(entry["file"]).read_text(encoding="utf-8")
        if entry["file"].endswith(".json"):
            messages = tuple((message["role"], message["content"]) for message in json.loads(content)["messages"])
        else:
            messages = (("text", content.removesuffix("\n")),)
        labels = {key: value for key, value in entry.items() if key != "file"}
        loaded.append(SampleText(**labels, messages=messages))
    return tuple(loaded)


def sample(name: str) -> SampleText:
    """Return the example called ``name``."""
    for candidate in samples():
        if candidate.name == name:
            return candidate
    raise TextError(f"there is no sample {name!r}; choose from {', '.join(s.name for s in samples())}")
