"""A strip as two blocks of bytes for the browser: a JSON header, then its arrays, each little endian and aligned.

`unpack.js` reads it. Layout: a digest of all the rest (16 bytes), by which the browser tells an unchanged block without
reading it; the header's length (uint32); the header (UTF-8, padded with spaces so that the arrays start at a multiple
of 8); the arrays. The header names an array by its type, its offset from the first array, and its count.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.figures.theme import BLUE, DIVERGING, ON_COLOUR, ORANGE, SEQUENTIAL
from analysis.token_strip.rows import RANGE, BarRow, LineRow, Row, Scale, Strip, TokenRow, TopK
from analysis.view import Theme

ALIGNMENT = 8  # bytes
DIGEST = 16  # bytes
TYPES = ("u1", "u2", "u4", "f4")
MISSING = 255  # of a uint8 value; 0 to 254 span the scale
NO_CHANCE = 65535  # a probability that is missing
COLOURS: dict[Theme, dict[str, Any]] = {
    theme: {
        "ramp": ramp,
        "diverging": DIVERGING[theme],
        "ink": ON_COLOUR[theme],
        "more": ORANGE[theme],
        "less": BLUE[theme],
    }
    for theme, ramp in SEQUENTIAL.items()
}
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Packed:
    """A strip in two parts, so that another score or lens sends only the second."""

    body: bytes  # texts, tokens, and all that the inspector shows
    look: bytes  # which rows are drawn, their colours, and the legend


def pack(strip: Strip, *, key: str, height: int, editable: bool = False) -> Packed:
    """The strip as bytes. Strings are stored once, however often a token comes up."""
    arrays, colours = _Arrays(), _Arrays()
    strings = _Strings()
    texts: list[str] = []
    rows: list[dict[str, Any]] = []
    looks: list[dict[str, Any]] = []
    for block, (text, block_rows) in enumerate(strip.blocks()):
        texts.append(safe(text))
        rows.extend(_pack_row(row, arrays, strings) | {"block": block} for row in block_rows)
        looks.extend(_pack_look(row, colours) for row in block_rows)
    body = _frame(
        {"aligned": strip.aligned, "texts": texts, "rows": rows, "strings": strings.table, "turns": strip.turns},
        arrays.joined(),
    )
    look: dict[str, Any] = {
        "body": list(body[:DIGEST]),
        "key": key,
        "height": height,
        "editable": editable,
        "rows": looks,
        "jumps": strip.jumps,
        "jumpTo": strip.jump_to,
        "overview": strip.overview,
        "legend": asdict(strip.legend),
        "colours": COLOURS,
    }
    return Packed(body, _frame(look, colours.joined()))


def safe(text: str) -> str:
    """The text with each lone surrogate, which UTF-8 cannot hold, as one U+FFFD: positions stay."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def quantise(value: NDArray[np.float32], scale: Scale) -> NDArray[np.uint8]:
    """Values on their scale as 0 to 254, NaN as MISSING; the middle of a diverging scale is exactly 127."""
    low, high = RANGE[scale]
    steps = np.rint((np.nan_to_num(value, nan=low) - low) / (high - low) * (MISSING - 1))
    return np.where(np.isnan(value), MISSING, steps).astype(np.uint8)


def _pack_row(row: Row, arrays: _Arrays, strings: _Strings) -> dict[str, Any]:
    packed = {
        "key": row.key,
        "title": row.title,
        "start": arrays.add(_small(row.start)),
        "end": arrays.add(_small(row.end)),
    }
    match row:
        case TokenRow():
            return packed | _pack_tokens(row, arrays, strings)
        case BarRow():
            return packed | {"kind": "bars"}
        case LineRow():
            return packed | {
                "kind": "line",
                "value": arrays.add(row.value.astype(np.float32)),
                "threshold": row.threshold,
                "marked": row.marked,
            }


def _pack_look(row: Row, arrays: _Arrays) -> dict[str, Any]:
    match row:
        case TokenRow():
            value = None if row.value is None else arrays.add(quantise(row.value, row.scale))
            return {"hidden": row.hidden, "scale": row.scale, "value": value}
        case BarRow():
            value = arrays.add(row.value.astype(np.float32))
            return {"hidden": row.hidden, "value": value, "up": row.up, "down": row.down}
        case LineRow():
            return {}


def _pack_tokens(row: TokenRow, arrays: _Arrays, strings: _Strings) -> dict[str, Any]:
    def flags(array: NDArray[np.bool_] | None) -> dict[str, Any] | None:
        return None if array is None else arrays.add(array.astype(np.uint8))

    def table(items: tuple[str, ...] | None) -> dict[str, Any] | None:
        return None if items is None else arrays.add(_small(strings.intern(items)))

    return {
        "kind": "tokens",
        "details": [
            {"label": d.label, "digits": d.digits, "values": arrays.add(_plain(d.values))} for d in row.details
        ],
        "notes": [
            {"label": note.label, "words": arrays.add(_small(strings.intern(note.words)[note.index]))}
            for note in row.notes
        ],
        "topk": None if row.topk is None else _pack_topk(row.topk, arrays, strings),
        "display": table(row.display),
        "labels": table(row.labels),
        "boundary": flags(row.boundary),
        "muted": flags(row.muted),
    }


def _pack_topk(topk: TopK, arrays: _Arrays, strings: _Strings) -> dict[str, Any]:
    used, index = np.unique(topk.ids, return_inverse=True)
    interned = strings.intern([topk.strings[i] for i in used])
    return {
        "k": topk.ids.shape[1],
        "ids": arrays.add(_small(interned[index.reshape(-1)])),
        "probability": arrays.add(_chances(topk.probability).reshape(-1)),
    }


def _chances(probability: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Probabilities in steps of 1 / 65534; NaN as NO_CHANCE."""
    steps = np.rint(np.nan_to_num(probability) * (NO_CHANCE - 1))
    return np.where(np.isnan(probability), NO_CHANCE, steps).astype(np.uint16)


def _plain(values: NDArray[Any]) -> NDArray[Any]:
    """Counts as small as they can be, all else as float32."""
    return _small(values) if np.issubdtype(values.dtype, np.integer) else values.astype(np.float32)


def _small(array: NDArray[Any]) -> NDArray[Any]:
    return array.astype(np.uint16 if not array.size or array.max() < 2**16 else np.uint32)


def _frame(header: Mapping[str, Any], body: bytes) -> bytes:
    head = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    head += b" " * (-(DIGEST + 4 + len(head)) % ALIGNMENT)
    rest = struct.pack("<I", len(head)) + head + body
    return hashlib.blake2b(rest, digest_size=DIGEST).digest() + rest


class _Arrays:
    """The body: arrays one after another. Equal ones, as rows of one tokenizer have, are held once."""

    def __init__(self) -> None:
        self._parts: dict[bytes, int] = {}
        self._length = 0

    def add(self, array: NDArray[Any]) -> dict[str, Any]:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        if little.dtype.str[1:] not in TYPES:
            raise TypeError(f"unpack.js reads {', '.join(TYPES)}, not {little.dtype}")
        data = little.tobytes()
        data += b"\0" * (-len(data) % ALIGNMENT)
        if data not in self._parts:
            self._parts[data] = self._length
            self._length += len(data)
        return {"type": little.dtype.str[1:], "at": self._parts[data], "count": little.size}

    def joined(self) -> bytes:
        return b"".join(self._parts)


class _Strings:
    """The table of all strings that tokens are shown as."""

    def __init__(self) -> None:
        self._index: dict[str, int] = {}

    @property
    def table(self) -> list[str]:
        return list(self._index)

    def intern(self, items: Sequence[str]) -> NDArray[np.int64]:
        index = self._index
        return np.fromiter((index.setdefault(safe(s), len(index)) for s in items), np.int64, len(items))
