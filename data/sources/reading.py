"""What the records of a source become: plain texts, prompts with a response, conversations.

Knows columns and patterns; nothing about files, tokens, mixes or cleaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.sources.records import Record, at_hand, records
from data.sources.schema import Columns, Shape, Source, Turns
from model.errors import TextError
from model.text.conversation import read_turn
from model.text.document import PLAIN, Message

FILTERS, UNUSABLE = "filters", "unusable"
_NOT_THERE = object()


@dataclass(frozen=True)
class SourceExample:
    """A record, or a piece of one."""

    number: int
    """Counted from 0 through the source, whatever becomes of it."""
    messages: tuple[Message, ...] | None
    """None where there is nothing to learn from."""
    ended: bool = True
    """False for a piece that the text goes on after."""
    reason: str | None = None
    """FILTERS or UNUSABLE, where there are no messages."""
    sample: str = ""
    """What the record holds instead."""


def readings(source: Source, local: Path | None = None) -> Iterator[SourceExample]:
    """Read a source.

    Args:
        source: what to read.
        local: the folder that holds its files; None: the hub.

    Raises:
        TextError: it cannot be had, a file is damaged, or a record lacks a column that is named.
    """
    at_hand(source, local)
    columns: Columns = source
    if local is not None and source.local_columns is not None:
        columns = source.local_columns
    if source.templates is not None:
        columns = Columns(prompt="prompt")
    number = 0
    for record in records(source, local):
        for each in _readings(source, columns, record, number):
            yield each
            number += 1


def _readings(source: Source, columns: Columns, record: Record, number: int) -> Iterator[SourceExample]:
    for rule in source.filters:
        if not rule.keeps(_at(source, record, rule.column)):
            yield SourceExample(
                number, None, reason=FILTERS, sample=f"{rule.column}: {_at(source, record, rule.column)}"
            )
            return
    if columns.text is not None:
        text = _cut_out(source, _text(source, record, columns.text))
        found = list(pieces(text, source.piece_chars))
        for i, piece in enumerate(found):
            yield SourceExample(number + i, (Message(PLAIN, piece),), ended=i == len(found) - 1)
        if not found:
            yield SourceExample(number, None, reason=UNUSABLE, sample="no text")
        return
    messages = _turns(source, columns.messages, record) if columns.messages else _pair(source, columns, record)
    if isinstance(messages, str):
        yield SourceExample(number, None, reason=UNUSABLE, sample=messages)
    else:
        yield SourceExample(number, messages)


def _pair(source: Source, columns: Columns, record: Record) -> tuple[Message, ...] | str:
    """A system message, a prompt and a response; a word where prompt or response is empty."""
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
        response = _cut_out(source, _text(source, record, columns.response)).strip()
        if not response:
            return f"no response to: {prompt}"
        messages.append(Message("assistant", response))
    return tuple(messages)


def _turns(source: Source, turns: Turns, record: Record) -> tuple[Message, ...] | str:
    """A conversation up to its last answer; a word where there is none, or someone unknown speaks."""
    messages = []
    for column in turns.columns:
        value = _at(source, record, column)
        for turn in value if isinstance(value, list) else [value]:
            role = turn.get(turns.role) if isinstance(turn, Mapping) else None
            if not isinstance(turn, Mapping) or not isinstance(role, str) or role not in turns.roles:
                return f"no turn of a known role: {turn}"
            try:
                said, _ = read_turn({**turn, "role": turns.roles[role], "content": turn.get(turns.content)})
            except TextError as error:
                return f"a turn that cannot be read, {error}: {turn}"
            if odd := [name for name in said.extras if name in ("tool_calls", "reasoning_content")]:
                return f"a turn with {odd[0]}, which is not trained on: {turn}"
            content = _clean(said.content).strip()
            if turns.roles[role] == "assistant":
                content = _cut_out(source, content).strip()
            if content or turns.roles[role] != "system":
                messages.append(Message(turns.roles[role], content))
    while messages and messages[-1].role != "assistant":
        messages.pop()
    speakers = [message.role for message in messages if message.role != "system"]
    if not messages or not all(message.content for message in messages) or speakers[0] != "user":
        return f"no question with an answer: {messages[0].content if messages else ''}"
    return tuple(messages)


def _at(source: Source, record: Record, column: str) -> object:
    """The value of a column; of a dotted one, inside a column.

    Raises:
        TextError: there is no such column.
    """
    value: object = record
    for part in [column] if column in record else column.split("."):
        value = value.get(part, _NOT_THERE) if isinstance(value, Mapping) else _NOT_THERE
    if value is _NOT_THERE:
        raise _no_column(source, record, column)
    return value


def _text(source: Source, record: Record, column: str) -> str:
    """A column's text; lists of texts a line each; none at all is the empty text."""
    value = _at(source, record, column)
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
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
    """Line breaks of one kind, and no half of a surrogate pair, which no UTF-8 file can hold."""
    return text.replace("\r\n", "\n").encode("utf-8", "ignore").decode("utf-8")


def _cut_out(shape: Shape, text: str) -> str:
    for pattern in shape.removed:
        text = re.sub(pattern, "", text)
    return text


def pieces(text: str, limit: int | None) -> Iterator[str]:
    """Cut a text at blank lines (at line breaks where there are none) once a piece has `limit` characters."""
    text = text.strip()
    if limit is None:
        if text:
            yield text
        return
    gathered: list[str] = []
    size = 0
    for paragraph in re.split(r"\n{2,}", text) if "\n\n" in text else text.split("\n"):
        gathered.append(paragraph)
        size += len(paragraph)
        if size >= limit:
            yield "\n\n".join(gathered)
            gathered, size = [], 0
    if size:
        yield "\n\n".join(gathered)
