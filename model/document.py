"""What is scored: a plain text or a conversation, and how a model's chat template lays it out.

Knows roles and character positions. Knows nothing about tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from model.errors import TextError

TEMPLATE = "template"  # the role of characters that a template adds
PLAIN = "text"  # the role of a text that is no conversation
ROLES = (PLAIN, "system", "user", "assistant")
SEPARATOR = "\n"  # between the messages of a conversation that is read without a template


@dataclass(frozen=True)
class Message:
    """One turn: `role` is one of ROLES, `content` any valid Unicode text."""

    role: str
    content: str

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise TextError(f"unknown role {self.role!r}; use one of {', '.join(ROLES)}")
        try:
            self.content.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextError(
                f"the text is not valid Unicode (a lone surrogate at character {error.start}); save it as UTF-8"
            ) from None


@dataclass(frozen=True)
class Document:
    """A plain text (one message of role "text") or a conversation."""

    messages: tuple[Message, ...]

    @classmethod
    def plain(cls, text: str) -> Document:
        """The document that is just `text`."""
        return cls((Message(PLAIN, text),))

    @property
    def text(self) -> str:
        """The contents, joined by SEPARATOR: the coordinates in which models are compared."""
        return SEPARATOR.join(message.content for message in self.messages)


@dataclass(frozen=True)
class Piece:
    """Characters [start, end) of a rendered text hold document.text[source : source + end - start]."""

    role: str
    start: int
    end: int
    source: int


@dataclass(frozen=True)
class Rendered:
    """What one model reads, and where the document's own characters stand in it."""

    text: str
    pieces: tuple[Piece, ...]
    chat: bool  # whether a chat template was applied


def render(document: Document, tokenizer: Any, chat: bool = False, reply: bool = False) -> Rendered:
    """Lay the document out as the model reads it.

    Args:
        document: what to read.
        tokenizer: of the model; only its chat template is used.
        chat: apply the template. A model without one reads the raw text, and `Rendered.chat` says so.
        reply: end with the template's cue for an answer, to be continued by the model.

    Raises:
        TextError: the template refuses the conversation, or rewrites its contents.
    """
    if not (chat and getattr(tokenizer, "chat_template", None)):
        pieces, position = [], 0
        for message in document.messages:
            end = position + len(message.content)
            pieces.append(Piece(message.role, position, end, position))
            position = end + len(SEPARATOR)
        return Rendered(document.text, tuple(pieces), chat=False)

    turns = [("user" if m.role == PLAIN else m.role, m.content) for m in document.messages]
    text = _apply(tokenizer, turns, reply)
    gaps = _gaps(tokenizer, turns, reply)
    pieces, position, source = [], len(gaps[0]), 0
    if not text.startswith(gaps[0]):
        raise TextError("the chat template treats this conversation differently from others; turn it off")
    for (role, content), gap in zip(turns, gaps[1:], strict=True):
        kept = _kept(text, position, content, gap, last=len(pieces) == len(turns) - 1)
        end = position + len(kept)
        pieces.append(Piece(role, position, end, source + content.find(kept)))
        position = end + len(gap)
        source += len(content) + len(SEPARATOR)
    return Rendered(text, tuple(pieces), chat=True)


def _apply(tokenizer: Any, turns: list[tuple[str, str]], reply: bool) -> str:
    conversation = [{"role": role, "content": content} for role, content in turns]
    try:
        return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=reply))
    except Exception as error:
        raise TextError(f"the model's chat template refuses this conversation: {error}") from error


def _gaps(tokenizer: Any, turns: list[tuple[str, str]], reply: bool) -> list[str]:
    """What the template puts before, between and after the contents: rendered once with marks in their place."""
    used = {character for _, content in turns for character in content}
    mark = next(chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in used)
    marked = _apply(tokenizer, [(role, f"{mark}{i}{mark}") for i, (role, _) in enumerate(turns)], reply)
    gaps = []
    for i in range(len(turns)):
        before, found, marked = marked.partition(f"{mark}{i}{mark}")
        if not found:
            raise TextError("the model's chat template drops a message of this conversation; turn it off")
        gaps.append(before)
    return [*gaps, marked]


def _kept(text: str, position: int, content: str, gap: str, last: bool) -> str:
    """The form in which the template kept a message: as it is, or stripped at one end or both."""
    for form in (content, content.strip(), content.lstrip(), content.rstrip()):
        end = position + len(form)
        follows = text[end:] == gap if last else text.startswith(gap, end)
        if text.startswith(form, position) and follows:
            return form
    raise TextError("the model's chat template rewrites a message of this conversation; turn it off")
