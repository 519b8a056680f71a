"""The document that is scored: a plain text or a conversation. chat_template.py lays it out for a model.

This module knows roles, but nothing about tokens, templates or files.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from model.errors import TextError
from model.reading.json_text import parse_json
from model.short_repr import ShortRepr

TEMPLATE = "template"  # the role of characters that a template adds
PLAIN = "text"  # the role of a text that is not a conversation
ROLES = (PLAIN, "system", "user", "assistant", "tool")
SEPARATOR = "\n"  # between the messages of a conversation that is read without a template


@dataclass(frozen=True, repr=False)
class Message(ShortRepr):
    """One turn: `role` is one of ROLES, `content` any valid Unicode text."""

    role: str
    content: str
    extra: str = ""
    """A JSON object with other values for the chat template, such as the turn's tool_calls; not part of the text."""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise TextError(f"unknown role {self.role!r}; use one of {', '.join(ROLES)}")
        try:
            self.content.encode("utf-8")
        except UnicodeEncodeError as error:
            raise TextError(
                f"the text is not valid Unicode (a lone surrogate at character {error.start}); save it as UTF-8"
            ) from None

    @property
    def extras(self) -> dict[str, Any]:
        """The values in `extra`, by name."""
        values: dict[str, Any] = parse_json(self.extra) if self.extra else {}
        return values


@dataclass(frozen=True, repr=False)
class Document(ShortRepr):
    """A plain text (one message of role "text") or a conversation, and the arguments of its chat template."""

    messages: tuple[Message, ...]
    arguments: tuple[tuple[str, str], ...] = ()
    """Arguments of the chat template, as JSON by name: enable_thinking, tools, ..."""
    date: str | None = None  # YYYY-MM-DD, the date for a template that writes one; None: today's
    notes: tuple[str, ...] = field(default=(), compare=False)
    """Notes on parts of a file that were left out or read as something else."""

    @classmethod
    def plain(cls, text: str) -> Document:
        return cls((Message(PLAIN, text),))

    def with_template_settings(self, arguments: Mapping[str, Any], date: str | None) -> Document:
        """Return the document with further template arguments, which come before its own, and the day's date."""
        every = dict(self.arguments) | dict(template_arguments(arguments))
        day = date or datetime.date.today().isoformat()
        return replace(self, arguments=tuple(sorted(every.items())), date=day)

    def replaced(self, start: int, end: int, written: str) -> Document:
        """Return the document with characters [start, end) of its text, which lie in one message, replaced.

        Raises:
            TextError: the characters lie in two messages.
        """
        messages, at = list(self.messages), 0
        for i, message in enumerate(messages):
            after = at + len(message.content)
            if at <= start <= end <= after and start < max(after, at + 1):
                content = message.content[: start - at] + written + message.content[end - at :]
                messages[i] = replace(message, content=content)
                return replace(self, messages=tuple(messages))
            at = after + len(SEPARATOR)
        raise TextError("this token belongs to two messages, so it cannot be replaced")

    @property
    def text(self) -> str:
        """The contents, joined by SEPARATOR: the coordinates in which models are compared."""
        return SEPARATOR.join(message.content for message in self.messages)


@dataclass(frozen=True)
class TextInput:
    """A document, and how a model reads it. Hashable, so that what was computed from it can be kept under it."""

    document: Document
    chat: bool = False  # apply the model's chat template where it has one
    force_bos: bool = False  # put BOS before the text even if the tokenizer does not

    @classmethod
    def plain(cls, text: str) -> TextInput:
        """A plain text, as the tokenizer reads it by itself."""
        return cls(Document.plain(text))


def template_arguments(given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return arguments of a chat template in the form in which a document holds them, in a fixed order."""
    return tuple((name, json.dumps(given[name], ensure_ascii=False)) for name in sorted(given))


def read_template_args(given: list[str] | None) -> dict[str, Any]:
    """Parse arguments of a chat template, given as NAME=JSON; a value that is not valid JSON is taken as a text."""
    arguments: dict[str, Any] = {}
    for argument in given or ():
        name, equals, value = argument.partition("=")
        if not equals or not name.isidentifier():
            raise TextError(f"an argument of a chat template has the form NAME=JSON, got {argument!r}")
        if name in arguments:
            raise TextError(f"the template argument {name!r} is given twice; give it once")
        try:
            arguments[name] = parse_json(value)
        except ValueError:
            arguments[name] = value
    return arguments
