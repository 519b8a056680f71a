"""Lay a document out with a model's chat template, and find the document's own characters in the result.

The text is always what transformers' `apply_chat_template` produces. Characters are located by rendering a second time
with marks in place of the contents (see message_spans.py). A template that rewrites contents is refused.
"""

from __future__ import annotations

import datetime
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from model.errors import TextError
from model.reading.json_text import parse_json
from model.text.document import PLAIN, SEPARATOR, Document
from model.text.message_spans import ContentSpan, place
from model.text.template_process import TemplateRefusal, apply_chat_template

FOLD = "\n\n"  # between a system message and the first question, if a template has no system message
_NOW = re.compile(r"""\bstrftime_now\(\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*\)""")
_NOW_BY_NAME = re.compile(r"\bstrftime_now\s*\(")


@dataclass(frozen=True)
class RenderedPiece:
    """Characters [start, end) of a rendered text hold document.text[source : source + end - start]."""

    role: str
    start: int
    end: int
    source: int


@dataclass(frozen=True)
class Rendered:
    """The text that one model reads, and the places of the document's own characters in it."""

    text: str
    pieces: tuple[RenderedPiece, ...]
    chat: bool  # whether a chat template was applied
    notes: tuple[str, ...] = ()  # notes for the reader: characters left out, a date that was written, ...
    date: str | None = None  # YYYY-MM-DD, the date that the template wrote


@dataclass(frozen=True)
class TemplatePart:
    """Characters [at, at + length) of a turn's content are document.text[source : source + length]."""

    role: str
    at: int
    length: int
    source: int


@dataclass(frozen=True)
class Turn:
    """A message as passed to a template; a folded system message is part of the first question."""

    role: str
    content: str
    extras: tuple[tuple[str, Any], ...]
    parts: tuple[TemplatePart, ...]

    def given(self, content: str, without: str = "") -> dict[str, Any]:
        """Return the turn as a dict with other content, and without one of its extras."""
        return {"role": self.role, "content": content, **{k: v for k, v in self.extras if k != without}}


def render(document: Document, tokenizer: Any, chat: bool = False, reply: bool = False) -> Rendered:
    """Lay the document out as the model reads it.

    Args:
        document: the document.
        tokenizer: the model's tokenizer; only its chat template is used.
        chat: apply the template. A model without one reads the raw text, and `Rendered.chat` is False.
        reply: end with the template's cue for an answer, which the model continues.

    Raises:
        TextError: the template refuses the conversation, or rewrites its contents.
    """
    if not (chat and getattr(tokenizer, "chat_template", None)):
        return _raw(document)
    applied = _Template(tokenizer, document, reply)
    turns, folded = _folded(applied, _turns(document))
    text = applied(turns)
    kept = place([turn.content for turn in turns], text, lambda contents: applied(turns, contents), applied.source)
    notes = list(document.notes)
    if folded:
        notes.append("the chat template has no system message, so it was put before the first question")
    notes += [*_left_out(turns, kept), *_unread(applied, turns, text), *applied.unused]
    date = applied.written_date(turns, text)
    if date is not None:
        notes.append(f"the chat template writes the date, {date}")
    if applied.undated:
        notes.append("the chat template writes a date that cannot be fixed, so another day gives other figures")
    pieces = [piece for part in kept for piece in _pieces(turns[part.turn], part)]
    return Rendered(text, tuple(pieces), True, tuple(notes), date)


def _raw(document: Document) -> Rendered:
    pieces, position, notes = [], 0, list(document.notes)
    for number, message in enumerate(document.messages, 1):
        end = position + len(message.content)
        pieces.append(RenderedPiece(message.role, position, end, position))
        position = end + len(SEPARATOR)
        if extras := [name for name in message.extras if name in ("tool_calls", "reasoning_content")]:
            notes.append(f"without a chat template, {' and '.join(extras)} of message {number} are not read")
    return Rendered(document.text, tuple(pieces), False, tuple(notes))


def _turns(document: Document) -> list[Turn]:
    turns, source = [], 0
    for message in document.messages:
        role, n = "user" if message.role == PLAIN else message.role, len(message.content)
        turns.append(Turn(role, message.content, tuple(message.extras.items()), (TemplatePart(role, 0, n, source),)))
        source += n + len(SEPARATOR)
    return turns


def _folded(applied: _Template, turns: list[Turn]) -> tuple[list[Turn], bool]:
    """Return the turns; a system message that the template refuses or drops is moved into the first question."""
    if turns[0].role != "system" or not turns[0].content.strip():
        return turns, False
    mark, refusal = "\ue000", None
    try:
        if mark in applied(turns, [mark, *(turn.content for turn in turns[1:])]):
            return turns, False
    except TextError as error:
        refusal = error
    if len(turns) > 1 and turns[1].role == "user":
        system, question = turns[:2]
        shift = len(system.content) + len(FOLD)
        parts = (*system.parts, *(replace(part, at=part.at + shift) for part in question.parts))
        content = system.content + FOLD + question.content
        folded = [Turn("user", content, question.extras, parts), *turns[2:]]
        try:
            applied(folded)
        except TextError:
            raise refusal or TextError("the chat template drops the system message; remove it") from None
        return folded, True
    raise refusal or TextError("the chat template drops the system message, and no question follows it; remove it")


def template_settings(
    tokenizer: Any, arguments: Sequence[tuple[str, str]], date: str | None
) -> tuple[dict[str, Any], str | None]:
    """Return options of `apply_chat_template` for arguments and a date, and the date if the template may write it."""
    applied = _Template(tokenizer, Document((), tuple(arguments), date), reply=False)
    if applied.unused:
        raise TextError(applied.unused[0])
    return applied.settings, applied.date


class _Template:
    """A tokenizer's chat template with a document's arguments and date, ready to be applied to turns."""

    def __init__(self, tokenizer: Any, document: Document, reply: bool) -> None:
        self._tokenizer, self._reply = tokenizer, reply
        self._arguments = {name: parse_json(value) for name, value in document.arguments}
        reserved = set(inspect.signature(tokenizer.apply_chat_template).parameters) - {"tools", "documents", "kwargs"}
        reserved |= {"messages"}  # the conversation itself
        if odd := sorted(reserved & set(self._arguments)):
            raise TextError(f"{odd[0]!r} is not an argument of a chat template; leave it out")
        if not isinstance(tools := self._arguments.get("tools", []), list | None):
            raise TextError(f"tools must be a list of JSON objects, got {tools!r}")
        try:
            self._given = str(tokenizer.get_chat_template(tools=self._arguments.get("tools")))
        except ValueError as error:
            raise TextError(f"the chat template cannot be chosen: {error}") from None
        self._date = document.date or datetime.date.today().isoformat()
        self.source = self._dated(self._date)
        self.date = None if self.source == self._given else self._date
        """The date that the template may write."""
        self.undated = bool(_NOW_BY_NAME.search(self.source))
        self.unused = [
            f"the chat template has no argument {name!r}: it was ignored"
            for name in self._arguments
            if not re.search(rf"\b{re.escape(name)}\b", self._given)
        ]

    def __call__(self, turns: Sequence[Turn], contents: Sequence[str] | None = None, without: str = "") -> str:
        """Render the turns, with other contents if they are given, and without one of the turns' extras."""
        held = contents if contents is not None else [turn.content for turn in turns]
        return self._apply([turn.given(content, without) for turn, content in zip(turns, held, strict=True)])

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of `apply_chat_template`: the document's, and a template with the date in it."""
        return {**self._arguments, **({"chat_template": self.source} if self.date is not None else {})}

    def written_date(self, turns: Sequence[Turn], text: str) -> str | None:
        """Return the date if it appears in the text."""
        if self.date is None:
            return None
        conversation = [turn.given(turn.content) for turn in turns]
        return None if self._apply(conversation, self._dated("1999-09-09")) == text else self._date

    def _dated(self, date: str) -> str:
        """Return the template with a date written into it."""
        try:
            day = datetime.datetime.fromisoformat(date)
        except ValueError:
            raise TextError(f"{date!r} is not a date; write it as YYYY-MM-DD") from None
        return _NOW.sub(lambda match: json.dumps(day.strftime(match[1] or match[2] or "")), self._given)

    def _apply(self, conversation: list[dict[str, Any]], source: str | None = None) -> str:
        options = {"add_generation_prompt": self._reply, "chat_template": source or self.source, **self._arguments}
        try:
            return apply_chat_template(self._tokenizer, conversation, **options)
        except TemplateRefusal as error:
            raise TextError(f"the model's chat template refuses this conversation: {error}") from error


def _pieces(turn: Turn, kept: ContentSpan) -> list[RenderedPiece]:
    """Return the document's pieces within a kept span of a turn."""
    pieces = []
    for part in turn.parts:
        begin, end = max(kept.begin, part.at), min(kept.end, part.at + part.length)
        if begin < end:
            start = kept.start + begin - kept.begin
            pieces.append(RenderedPiece(part.role, start, start + end - begin, part.source + begin - part.at))
    return pieces


def _left_out(turns: Sequence[Turn], kept: Sequence[ContentSpan]) -> list[str]:
    """Return notes on characters that the template drops, except for white space at the ends of a message."""
    notes = []
    parts = [list[ContentSpan]() for _ in turns]
    for part in kept:
        parts[part.turn].append(part)
    for i, turn in enumerate(turns):
        marks = [False] * len(turn.content)
        for part in parts[i]:
            marks[part.begin : part.end] = [True] * (part.end - part.begin)
        count = sum(not read and not turn.content[at].isspace() for at, read in enumerate(marks))
        if count:
            notes.append(f"the chat template leaves out {count:,} characters of turn {i + 1} ({turn.role}): not read")
    return notes


def _unread(applied: _Template, turns: Sequence[Turn], text: str) -> list[str]:
    """Return notes on extras that the template does not write."""
    notes = []
    for name in sorted({name for turn in turns for name, _ in turn.extras} - {"tool_call_id"}):
        try:
            if applied(turns, without=name) != text:
                continue
        except TextError:  # the template fails without it, so it reads it
            continue
        if name == "tool_calls":
            number = next(i for i, turn in enumerate(turns, 1) if dict(turn.extras).get(name))
            raise TextError(f"the model's chat template does not write the tool calls of message {number}")
        notes.append(f"the chat template does not write {name!r} of a message, so it is not read")
    return notes
