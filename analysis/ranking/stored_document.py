"""One document of a store as a text or a conversation again, to be opened on another page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data.corpus.scored_rows import ROLE_NAMES, ScoredRow, from_parquet
from data.corpus.store import CorpusStore
from model.errors import TextError
from model.text.document import PLAIN, SEPARATOR, TEMPLATE, Document, Message


@dataclass(frozen=True)
class StoredDocument:
    """A document, and how it was read."""

    document: Document
    chat: bool  # whether a chat template was applied to it
    whole: bool  # False if the store holds only its start


def stored_document(store: CorpusStore, number: int) -> StoredDocument:
    """Read a document of a store. Only the shards that hold it are read.

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
    whole = sum(len(piece.ids) for piece in pieces) >= pieces[0].document_tokens
    return StoredDocument(Document(messages), chat, whole)


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
