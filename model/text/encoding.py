"""Turn a rendered text into token ids with positions: character spans, roles, display strings.

Spans come from the tokens' own bytes if these spell the text exactly, since the offsets that a tokenizer reports trim
white space and are inexact for characters split over tokens. This module knows nothing about models or scores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import TextError
from model.short_repr import ShortRepr
from model.text.chat_template import render
from model.text.document import PLAIN, TEMPLATE, TextInput

PER_TOKEN = ("ids", "start", "end", "continuation", "role", "source_start", "source_end")  # of an EncodedText
_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True, repr=False)
class EncodedText(ShortRepr):
    """N tokens of one text, as one model reads them. The tokenizer's prefix is context, not rows."""

    text: str  # the text that the model reads, chat template included, prefix excluded
    ids: NDArray[np.int64]  # [N]
    start: NDArray[np.int32]  # [N] characters [start, end) of `text` that the token touches
    end: NDArray[np.int32]  # [N]
    continuation: NDArray[np.bool_]  # [N] the token starts inside a character
    role: NDArray[np.str_]  # [N] text, system, user, assistant or template
    source_start: NDArray[np.int32]  # [N] the same characters in the document's own text; -1 in the template
    source_end: NDArray[np.int32]  # [N]
    prefix: tuple[int, ...]  # ids before the text: BOS in most models, none in some, two in GLM-4
    chat: bool  # a chat template was applied
    exact: bool  # spans come from the tokens' bytes, not from reported offsets
    notes: tuple[str, ...] = ()  # notes on how the text was laid out
    date: str | None = None  # YYYY-MM-DD, the date that the chat template wrote

    def __post_init__(self) -> None:
        shapes = {name: getattr(self, name).shape for name in PER_TOKEN}
        if set(shapes.values()) != {(len(self.ids),)}:
            raise ValueError(f"EncodedText needs arrays of one shape [N], got {shapes}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def display(self) -> list[str]:
        """The string to show for each token; a split character is shown whole on each of its tokens."""
        return [self.text[a:b] for a, b in zip(self.start.tolist(), self.end.tolist(), strict=True)]

    @property
    def given(self) -> int:
        """Number of tokens before the first of the last answer; of a plain text 1, as in training."""
        first = np.arange(len(self)) == 0
        answer = (self.role == "assistant") | ((self.role == PLAIN) & ~first)
        others = np.flatnonzero(~answer & (self.source_start >= 0) & ~((self.role == PLAIN) & first))
        written = np.flatnonzero(answer)
        written = written[written > (others[-1] if len(others) else -1)]
        return int(written[0]) if len(written) else len(self)

    def part(self, a: int, b: int) -> EncodedText:
        """The tokens a .. b - 1; `text` stays."""
        return replace(self, **{name: getattr(self, name)[a:b] for name in PER_TOKEN})

    def head(self, n: int) -> EncodedText:
        return self.part(0, n)


def encode(text: TextInput, tokenizer: Any, reply: bool = False) -> EncodedText:
    """Tokenise a text as the model reads it.

    Special tokens that are written out in the text are read as such, as transformers does.
    """
    rendered = render(text.document, tokenizer, text.chat, reply)
    if not getattr(tokenizer, "is_fast", False):
        raise TextError("this tokenizer has no fast version, so the positions of its tokens are unknown")
    batch = tokenizer(rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    ids = np.asarray(batch["input_ids"], dtype=np.int64)
    offsets = np.asarray(batch["offset_mapping"], dtype=np.int32).reshape(-1, 2)
    pieces = _token_bytes(tokenizer, ids)
    spans = _spans_from_bytes(rendered.text, pieces)
    exact = spans is not None
    start, end, continuation = spans if spans is not None else _spans_from_offsets(rendered.text, offsets)

    prefix = prefix_ids(tokenizer, text.force_bos)
    if rendered.chat and prefix and tuple(ids[: len(prefix)].tolist()) == prefix:  # the template writes it itself
        n = len(prefix)
        ids, start, end, continuation = ids[n:], start[n:], end[n:], continuation[n:]

    # From characters to pieces, then from tokens to the piece of all their characters; one that straddles is template.
    outside = len(rendered.pieces)
    piece_of = np.full(len(rendered.text) + 1, outside, dtype=np.int32)
    shift = np.zeros(len(rendered.text) + 1, dtype=np.int32)
    for i, piece in enumerate(rendered.pieces):
        piece_of[piece.start : piece.end] = i
        shift[piece.start : piece.end] = piece.source - piece.start
    # A token without characters goes with the character that follows, or with the last.
    first = np.where(end > start, start, np.minimum(start, max(len(rendered.text) - 1, 0)))
    which = np.where(piece_of[first] == piece_of[np.maximum(end - 1, first)], piece_of[first], outside)
    roles = np.array([*(piece.role for piece in rendered.pieces), TEMPLATE])
    source = np.where(which < outside, shift[first], 0)
    return EncodedText(
        text=rendered.text,
        ids=ids,
        start=start,
        end=end,
        continuation=continuation,
        role=roles[which],
        source_start=np.where(which < outside, start + source, -1).astype(np.int32),
        source_end=np.where(which < outside, end + source, -1).astype(np.int32),
        prefix=prefix,
        chat=rendered.chat,
        exact=exact,
        notes=rendered.notes,
        date=rendered.date,
    )


def encode_reply(prompt: EncodedText, ids: NDArray[np.int64], tokenizer: Any) -> EncodedText:
    """Return the prompt's tokens followed by generated ones, of role assistant.

    Bytes that never became a whole character are shown as U+FFFD.
    """
    pieces = token_bytes(tokenizer, ids)
    text = b"".join(pieces).decode("utf-8", "replace")
    spans = _spans_from_bytes(text, pieces)
    if spans is None:  # some bytes had to be replaced, so each token is decoded on its own
        text = "".join(piece.decode("utf-8", "replace") for piece in pieces)
        ends = np.cumsum([len(piece.decode("utf-8", "replace")) for piece in pieces], dtype=np.int32)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int32) if len(ends) else ends
        spans = starts, ends, np.zeros(len(ids), dtype=bool)
    start, end, continuation = spans
    offset, source = len(prompt.text), int(prompt.source_end.max(initial=0))
    return replace(
        prompt,
        text=prompt.text + text,
        ids=np.concatenate([prompt.ids, ids]),
        start=np.concatenate([prompt.start, start + offset]).astype(np.int32),
        end=np.concatenate([prompt.end, end + offset]).astype(np.int32),
        continuation=np.concatenate([prompt.continuation, continuation]),
        role=np.concatenate([prompt.role, np.full(len(ids), "assistant")]),
        source_start=np.concatenate([prompt.source_start, start + source]).astype(np.int32),
        source_end=np.concatenate([prompt.source_end, end + source]).astype(np.int32),
    )


def token_strings(tokenizer: Any, ids: NDArray[np.int64]) -> list[str]:
    """Return the string of each vocabulary entry; bytes that are not a whole character are written as <0xNN>."""
    return [_show(piece) for piece in token_bytes(tokenizer, ids)]


def token_bytes(tokenizer: Any, ids: NDArray[np.int64]) -> list[bytes]:
    """Return the bytes of each vocabulary entry, in UTF-8, which may be a part of a character."""
    return _token_bytes(tokenizer, ids) or [tokenizer.decode([int(i)]).encode("utf-8", "replace") for i in ids]


def _show(piece: bytes) -> str:
    return piece.decode("utf-8", "surrogateescape").translate(_ESCAPED)


_ESCAPED = {0xDC00 + byte: f"<0x{byte:02X}>" for byte in range(0x80, 0x100)}


def prefix_ids(tokenizer: Any, force_bos: bool) -> tuple[int, ...]:
    """Return the ids that the tokenizer itself puts before a text, after a BOS if the user forces one.

    Ids that it puts after a text, usually an end token, are not part of the text and are not read.
    """
    probe = tokenizer("a", return_special_tokens_mask=True, verbose=False)
    ids, special = probe["input_ids"], probe["special_tokens_mask"]
    prefix = tuple(int(i) for i in ids[: special.index(0) if 0 in special else 0])
    bos = tokenizer.bos_token_id
    if not force_bos or bos in prefix:
        return prefix
    if bos is None:
        raise TextError("BOS was requested, but this model's tokenizer has none; leave it off")
    return (int(bos), *prefix)


@lru_cache(maxsize=1)
def _unicode_to_byte() -> dict[str, int]:
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    return {character: byte for byte, character in bytes_to_unicode().items()}


def _token_bytes(tokenizer: Any, ids: NDArray[np.int64]) -> list[bytes] | None:
    """Return the bytes of each token, by the tokenizer's kind; None if the kind is unknown."""
    decoder = str(tokenizer.backend_tokenizer.decoder)
    if "ByteLevel" in decoder:
        read = _read_byte_level
    elif "▁" in decoder or "Metaspace" in decoder:
        read = _read_sentencepiece
    else:
        return None
    added = {i: token.content for i, token in tokenizer.added_tokens_decoder.items()}
    unique, inverse = np.unique(ids, return_inverse=True)
    names = tokenizer.convert_ids_to_tokens(unique.tolist())
    table = [
        added[i].encode("utf-8") if i in added else read(name or "")
        for i, name in zip(unique.tolist(), names, strict=True)
    ]
    return [table[i] for i in inverse.tolist()]


def _read_byte_level(token: str) -> bytes:
    table = _unicode_to_byte()
    if all(character in table for character in token):
        return bytes(table[character] for character in token)
    return token.encode("utf-8")


def _read_sentencepiece(token: str) -> bytes:
    if match := _BYTE_TOKEN.fullmatch(token):
        return bytes([int(match[1], 16)])
    return token.replace("▁", " ").encode("utf-8")


Spans = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_]]


def _spans_from_bytes(text: str, pieces: list[bytes] | None) -> Spans | None:
    """Return character spans if the tokens' bytes spell the text exactly, else None."""
    data = text.encode("utf-8")
    if pieces is None:
        return None
    if pieces and b"".join(pieces) == b" " + data and pieces[0].startswith(b" "):  # a dummy space before the text
        pieces = [pieces[0][1:], *pieces[1:]]
    if b"".join(pieces) != data:
        return None
    first_byte = (np.frombuffer(data, dtype=np.uint8) & 0xC0) != 0x80  # True for the first byte of a character
    character = np.append(np.cumsum(first_byte) - 1, len(text)).astype(np.int32)
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    begins = np.concatenate([[0], ends[:-1]]).astype(np.int64) if len(ends) else ends
    start = character[begins]
    end = np.where(ends > begins, character[np.maximum(ends - 1, 0)] + 1, start).astype(np.int32)
    continuation = np.zeros(len(begins), dtype=bool)
    inside = begins < len(data)
    continuation[inside] = ~first_byte[begins[inside]]
    return start, end, continuation


def _spans_from_offsets(text: str, offsets: NDArray[np.int32]) -> Spans:
    """Return the tokenizer's offsets; what they trim goes to the token that follows, and the rest to the last token."""
    start, end = offsets[:, 0].copy(), offsets[:, 1].copy()
    reached = np.maximum.accumulate(end) if len(end) else end
    before = np.concatenate([[0], reached[:-1]]).astype(np.int32) if len(end) else end
    continuation = start < before
    start = np.where(continuation, start, before).astype(np.int32)
    if len(end):
        end[-1] = len(text)
    return start, np.maximum(end, start).astype(np.int32), continuation
