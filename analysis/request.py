"""What was asked: the inputs that decide a comparison, as one value that can be kept, hashed, sent and run again."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.compare import Comparison, compare, compare_continuations
from analysis.figures.base import View
from model.continuation import Sampling
from model.document import PLAIN, Document, Message
from model.errors import TextError
from model.forward import Progress
from model.loading import LoadedModel, ModelFacts, ModelSpec


@dataclass(frozen=True)
class Request:
    """Two models, a document, and how it is read."""

    a: ModelSpec
    b: ModelSpec
    document: Document
    chat: bool = False
    force_bos: bool = False
    new_tokens: int = 0  # more than 0: each model continues the document, and its own continuation is scored
    sampling: Sampling = field(default_factory=Sampling)

    def run(self, load: Callable[[ModelSpec], LoadedModel], progress: Progress | None = None) -> Comparison:
        """Answer the request with models that `load` gives."""
        a, b = load(self.a), load(self.b)
        if self.new_tokens:
            return compare_continuations(
                a, b, self.document, self.new_tokens, self.sampling, self.chat, self.force_bos, progress=progress
            )
        return compare(a, b, self.document, self.chat, self.force_bos, progress=progress)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)

    def text_file(self) -> tuple[str, bytes]:
        """The document as a file that the command line reads: name and content."""
        messages = self.document.messages
        if len(messages) == 1 and messages[0].role == PLAIN:
            text = messages[0].content
            # a file's first U+FEFF is read as its mark, so that a text that begins with one needs another
            return "text.txt", text.encode("utf-8-sig" if text.startswith("\ufeff") else "utf-8")
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return "messages.json", json.dumps({"messages": turns}, indent=1, ensure_ascii=False).encode("utf-8")

    def command(self, figure: str, comparison: Comparison, view: View, out: str) -> str:
        """The command line that makes the same figure from `text_file()` in the working folder."""
        words = ["python", "-m", "analysis", "figure", figure]
        for side, spec, facts in (("a", self.a, comparison.a.facts), ("b", self.b, comparison.b.facts)):
            words += [f"--{side}", str(Path(spec.name).resolve()) if Path(spec.name).exists() else spec.name]
            revision = spec.revision or _commit(facts)
            words += [f"--{side}-revision", revision] if revision else []
            words += [f"--{side}-adapter", spec.adapter] if spec.adapter else []
        words += ["--text-file", self.text_file()[0]]
        words += ["--chat"] if self.chat else []
        words += ["--force-bos"] if self.force_bos else []
        if self.new_tokens:
            words += ["--continue", str(self.new_tokens), "--temperature", str(self.sampling.temperature)]
            words += ["--top-p", str(self.sampling.top_p), "--seed", str(self.sampling.seed)]
        same = comparison.a.facts.dtype == comparison.b.facts.dtype
        words += ["--dtype", comparison.a.facts.dtype if self.a.dtype == "auto" and same else self.a.dtype]
        words += ["--quantization", self.a.quantization] if self.a.quantization != "none" else []
        words += ["--attn-implementation", self.a.attn_implementation] if self.a.attn_implementation else []
        words += ["--trust-remote-code"] if self.a.trust_remote_code else []
        words += ["--score", view.score, "--unit", view.unit, "--theme", view.theme]
        words += ["--pinned", str(view.pinned)] if view.pinned is not None else []
        words += ["--role", view.role] if view.role != "all" else []
        return shlex.join([*words, "--out", out])


def _commit(facts: ModelFacts) -> str | None:
    """The hub commit that answered, so that a later run does not take a newer one."""
    return facts.revision if facts.source.startswith("hub ") else None


def read_document(content: bytes, name: str) -> Document:
    """A document from a file's content: UTF-8 text, or a JSON conversation where the name ends with .json.

    Raises:
        TextError: not UTF-8, not a text, or JSON that is no conversation.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    if not name.endswith(".json"):
        return Document.plain(text)
    try:
        turns = json.loads(text)["messages"]
        return Document(tuple(Message(str(turn["role"]), str(turn["content"])) for turn in turns))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise TextError(
            f'{name} is no conversation; it should hold {{"messages": [{{"role": "user", "content": "..."}}]}}'
        ) from None
