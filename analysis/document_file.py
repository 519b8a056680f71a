"""Documents as files: UTF-8 text, or a conversation as JSON."""

from __future__ import annotations

import json

from model.document import PLAIN, Document, Message
from model.errors import TextError
from model.lfs import WHAT, is_pointer


def document_file(document: Document) -> tuple[str, bytes]:
    """Name and content of a file from which `read_document` reads the same document."""
    messages = document.messages
    if len(messages) == 1 and messages[0].role == PLAIN:
        text = messages[0].content
        # a file's first U+FEFF is read as its mark, so that a text that begins with one needs another
        return "text.txt", text.encode("utf-8-sig" if text.startswith("\ufeff") else "utf-8")
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return "messages.json", json.dumps({"messages": turns}, indent=1, ensure_ascii=False).encode("utf-8")


def read_document(content: bytes, name: str) -> Document:
    """A document from a file's content: UTF-8 text, or a JSON conversation where the name ends with .json.

    Raises:
        TextError: not UTF-8, not a text, or JSON that is no conversation.
    """
    if is_pointer(content):
        raise TextError(f"{name} {WHAT}")
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
