"""One document of a store as a text or a conversation again, and how it was read, to be opened on another page."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

import numpy as np

from analysis.ranking.pairing import Pairing
from data.corpus.scored_rows import ROLE_NAMES, ScoredRow, from_parquet
from data.corpus.store import CorpusStore
from model.errors import TextError
from model.text.document import PLAIN, SEPARATOR, TEMPLATE, Document, Message


@dataclass(frozen=True)
class ReadingSettings:
    """How the documents of a store were read, beside the model itself."""

    chat: bool
    force_bos: bool
    template: str  # arguments of the chat template as NAME=JSON, separated by spaces, the date among them
    dtype: str
    quantization: str


def reading_settings(store: CorpusStore) -> ReadingSettings:
    """The settings that a model needs to read a document of a store in the same way."""
    given = store.manifest["parameters"]
    arguments = dict(given.get("template") or {})
    if date := given.get("template_date"):
        arguments["template_date"] = json.dumps(date)
    template = shlex.join(f"{name}={value}" for name, value in sorted(arguments.items()))
    facts = store.facts
    return ReadingSettings(
        bool(given.get("chat")), bool(given.get("force_bos")), template, facts.dtype, facts.quantization
    )


def opening_notes(pair: Pairing) -> tuple[str, ...]:
    """Why the numbers of an opened document may differ from those of the stores."""
    sides = [side.store for side in (pair.a, pair.b) if side is not None]
    notes = []
    if any(store.manifest["parameters"].get(name) for store in sides for name in ("windows", "window_characters")):
        notes.append(
            "longer documents were scored in windows, each as a text of its own; an opened document is scored whole, so"
            " its numbers differ from the second window on"
        )
    if (pair.a.cut[pair.at_a]).any():
        notes.append("of a document whose end was not scored, the part that A holds opens")
    first, *others = map(reading_settings, sides)
    titles = {
        "chat": "the chat template",
        "force_bos": "forced BOS",
        "template": "template arguments",
        "dtype": "precision",
        "quantization": "quantisation",
    }
    different = [
        title for name, title in titles.items() if any(getattr(other, name) != getattr(first, name) for other in others)
    ]
    if different:
        notes.append(
            f"the stores differ in {', '.join(different)}; an opened document is read as in A, so B's numbers differ"
        )
    return tuple(notes)


def stored_document(store: CorpusStore, number: int) -> Document:
    """Read a document of a store: the part that was scored. Only the shards that hold it are read.

    Raises:
        TextError: the store holds no such document, or it has no token.
    """
    pieces: list[ScoredRow] = []
    begin = 0
    for shard, mark in enumerate(store.marks):
        last, window = mark.next  # where the next shard begins
        if begin <= number < last or (number == last and window > 0):
            rows = from_parquet(store.content(shard))
            pieces += [rows.row(i) for i in np.flatnonzero(rows.document == number).tolist()]
        begin = last
    if not any(len(piece.ids) for piece in pieces):
        raise TextError(f"{store.path} holds no text of document {number}")
    chat = bool(store.manifest["parameters"].get("chat"))
    messages = _messages(pieces)
    if chat and [message.role for message in messages] == ["user"]:  # a plain text is the user's under a template
        messages = (Message(PLAIN, messages[0].content),)
    return Document(messages)


def _messages(pieces: list[ScoredRow]) -> tuple[Message, ...]:
    """The turns, from the roles of the tokens: a turn ends where the role changes, or the template stands between."""
    origin = pieces[0].text_start
    text = "".join(piece.text for piece in pieces)
    starts: list[tuple[int, str]] = []
    before = ""
    for piece in pieces:
        for start, role in zip(piece.start.tolist(), (ROLE_NAMES[code] for code in piece.role.tolist()), strict=True):
            if role != before and role != TEMPLATE and start >= 0:
                starts.append((start - origin, role))
            before = role
    if not starts or all(role == PLAIN for _, role in starts):
        return (Message(PLAIN, text),)
    ends = [*(start for start, _ in starts[1:]), len(text)]
    found = []
    for (start, role), end, final in zip(starts, ends, [False] * (len(ends) - 1) + [True], strict=True):
        content = text[start:end]
        found.append(Message(role, content if final else content.removesuffix(SEPARATOR)))
    return tuple(_without_lead(found))


def _without_lead(messages: list[Message]) -> list[Message]:
    """A separator that a token joins with the text after it belongs to neither turn."""
    first, *others = messages
    return [first, *(Message(each.role, each.content.removeprefix(SEPARATOR)) for each in others)]
