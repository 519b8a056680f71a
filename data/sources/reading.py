"""Turn the records of a source into plain texts, prompts with a response, or conversations.

This module knows columns and patterns, but nothing about files, tokens, mixes or cleaning.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.sources.records import Record, records, require_source
from data.sources.schema import Columns, Shape, Source, Turns
from model.errors import TextError
from model.text.conversation import read_turn
from model.text.document import PLAIN, Message

FILTERS, UNUSABLE = "filters", "unusable"
_MISSING = object()


@dataclass(frozen=True)
class SourceExample:
    """A record, or a piece of one."""

    number: int  # its number in the source from 0, counting unusable ones too
    messages: tuple[Message, ...] | None  # None if it is unusable
    ended: bool = True  # False if the text continues after this piece
    reason: str | None = None  # FILTERS or UNUSABLE, if there are no messages
    sample: str = ""  # what the record holds instead


def readings(source: Source, local: Path | None = None) -> Iterator[SourceExample]:
    """Read a source."""
    require_source(source, local)
    columns: Columns = source
    if local is not None and source.local_columns is not None:
        columns = source.local_columns
    if source.templates is not None:
        columns = Columns(prompt="prompt")
    number = 0
    for record in records(source, local):
        for example in _readings(source, columns, record, number):
            yield example
            number += 1


def _readings(source: Source, columns: Columns, record: Record, number: int) -> Iterator[SourceExample]:
    for rule in source.filters:
        if not rule.keeps(_at(source, record, rule.column)):
            yield SourceExample(
                number, None, reason=FILTERS, sample=f"{rule.column}: {_at(source, record, rule.column)}"
            )
            return
    if columns.text is not None:
        text = _without_removed(source, _text(source, record, columns.text))
        parts = list(pieces(text, source.piece_chars))
        for i, piece in enumerate(parts):
            yield SourceExample(number + i, (Message(PLAIN, piece),), ended=i == len(parts) - 1)
        if not parts:
            yield SourceExample(number, None, reason=UNUSABLE, sample="no text")
        return
    messages = _turns(source, columns.messages, record) if columns.messages else _pair(source, columns, record)
    if isinstance(messages, str):
        yield SourceExample(number, None, reason=UNUSABLE, sample=messages)
    else:
        yield SourceExample(number, messages)


def _pair(source: Source, columns: Columns, record: Record) -> tuple[Message, ...] | str:
    """Return a system message, a prompt and a response; or a reason if prompt or response is empty."""
    names = (columns.prompt,) if isinstance(columns.prompt, str) else columns.prompt or ()
    parts = [_text(source, record, name).strip() for name in names]
    prompt = "\n\n".join(part for part in parts if part)
    if source.prompt_pattern is not None and (found := re.search(source.prompt_pattern, prompt)):
        prompt = (found.group(1) or "").strip()
    if not prompt:
        return "no prompt"
    system = _text(source, record, columns.system).strip() if columns.system is not None else ""
    messages = [*([Message("system", system)] if system else []), Message("user", prompt)]
    if columns.response is not None:
        response = _without_removed(source, _text(source, record, columns.response)).strip()
        if not response:
            return f"no response to: {prompt}"
        messages.append(Message("assistant", response))
    return tuple(messages)


def _turns(source: Source, turns: Turns, record: Record) -> tuple[Message, ...] | str:
    """Return a conversation up to its last answer; or a reason if there is none, or a speaker is unknown."""
    messages = []
    for column in turns.columns:
        value = _at(source, record, column)
        for turn in value if isinstance(value, list) else [value]:
            role = turn.get(turns.role) if isinstance(turn, Mapping) else None
            if not isinstance(turn, Mapping) or not isinstance(role, str) or role not in turns.roles:
                return f"no turn of a known role: {turn}"
            try:
                message, _ = read_turn({**turn, "role": turns.roles[role], "content": turn.get(turns.content)})
            except TextError as error:
                return f"a turn that cannot be read, {error}: {turn}"
            if extras := [name for name in message.extras if name in ("tool_calls", "reasoning_content")]:
                return f"a turn with {extras[0]}, which is not trained on: {turn}"
            content = _clean(message.content).strip()
            if turns.roles[role] == "assistant":
                content = _without_removed(source, content).strip()
            if content or turns.roles[role] != "system":
                messages.append(Message(turns.roles[role], content))
    while messages and messages[-1].role != "assistant":
        messages.pop()
    speakers = [message.role for message in messages if message.role != "system"]
    if not messages or not all(message.content for message in messages) or speakers[0] != "user":
        return f"no question with an answer: {messages[0].content if messages else ''}"
    return tuple(messages)


def _at(source: Source, record: Record, column: str) -> object:
    """Return the value of a column; a dotted name leads into a column."""
    value: object = record
    for part in [column] if column in record else column.split("."):
        value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
    if value is _MISSING:
        raise _no_column(source, record, column)
    return value


def _text(source: Source, record: Record, column: str) -> str:
    """Return a column's text. Lists of texts are joined line by line; None is the empty text."""
    value = _at(source, record, column)
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        value = "\n".join(value)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _no_column(source, record, column)
    return _clean(value)


def _no_column(source: Source, record: Record, column: str) -> TextError:
    return TextError(
        f"source {source.name!r}: a record has no text in column {column!r}, only {', '.join(record) or 'none'}; "
        "check that this is the data set that the source names"
    )


def _clean(text: str) -> str:
    """Unify line breaks, and remove lone surrogates, which no UTF-8 file can hold."""
    return text.replace("\r\n", "\n").encode("utf-8", "ignore").decode("utf-8")


def _without_removed(shape: Shape, text: str) -> str:
    for pattern in shape.removed:
        text = re.sub(pattern, "", text)
    return text


def pieces(text: str, limit: int | None) -> Iterator[str]:
    """Split a text at blank lines (or at line breaks if there are none) once a piece has `limit` characters."""
    text = text.strip()
    if limit is None:
        if text:
            yield text
        return
    paragraphs: list[str] = []
    size = 0
    for paragraph in re.split(r"\n{2,}", text) if "\n\n" in text else text.split("\n"):
        paragraphs.append(paragraph)
        size += len(paragraph)
        if size >= limit:
            yield "\n\n".join(paragraphs)
            paragraphs, size = [], 0
    if size:
        yield "\n\n".join(paragraphs)
