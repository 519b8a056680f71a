"""Reads and writes documents as files: UTF-8 text, or a conversation as JSON."""

from __future__ import annotations

import json

from model.errors import TextError
from model.git_lfs import WHAT, is_pointer
from model.reading.json_text import parse_json
from model.text.conversation import EXPECTED, read_conversation
from model.text.document import PLAIN, Document


def document_file(document: Document) -> tuple[str, bytes]:
    """Name and content of a file from which `read_document` reads the same document.

    The file holds a conversation's tools; other arguments of its template are options of the command line.
    """
    messages = document.messages
    if len(messages) == 1 and messages[0].role == PLAIN:
        text = messages[0].content
        # a U+FEFF at the start of a file is read as its byte order mark, so a text that starts with one needs another
        return "text.txt", text.encode("utf-8-sig" if text.startswith("\ufeff") else "utf-8")
    turns = [{"role": message.role, "content": message.content, **message.extras} for message in messages]
    tools = {name: parse_json(value) for name, value in document.arguments if name == "tools"}
    return "messages.json", json.dumps({"messages": turns, **tools}, indent=1, ensure_ascii=False).encode("utf-8")


def read_document(content: bytes, name: str) -> Document:
    """A document from a file's content: UTF-8 text, or a JSON conversation if the name ends with .json.

    Raises:
        TextError: the content is not UTF-8, not a text, or not a conversation.
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
        held = parse_json(text)
    except (ValueError, RecursionError):
        raise TextError(f"{name} is not a conversation; {EXPECTED}") from None
    return read_conversation(held, name)
