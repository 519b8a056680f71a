"""Scored tokens as arrays, a document or a window of one a row, and as Parquet files of such rows.

One row a document, since a document is what segments, intervals and batches are of: its offsets come with the lists,
where a row a token needs them rebuilt and loses empty documents. Measured on a million tokens it is no larger (16.8
bytes a token with split float bytes, delta-coded positions and zstd; 25 plain) and reads in .08 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model.short_repr import ShortRepr
from model.text.document import PLAIN, TEMPLATE

ROLE_NAMES = (PLAIN, "system", "user", "assistant", TEMPLATE, "tool")  # `role` holds places in it: only ever add
_FLOATS, _POSITIONS = ("entropy", "confidence", "margin", "surprisal"), ("start", "end")
_TOKEN = {"ids": "i4", **dict.fromkeys(_FLOATS, "f4"), "rank": "i4", "start": "i4", "end": "i4", "role": "u1"}
_ROW = {"document": "i4", "piece": "i4", "document_tokens": "i4", "text_start": "i4"}


@dataclass(frozen=True, repr=False)
class ScoredRow(ShortRepr):
    """N scored tokens of one document, or of one window of it. A missing score is NaN, its rank 0."""

    document: int  # number of the document in the corpus
    piece: int  # number of the window in the document; 0 where documents are not cut into windows
    document_tokens: int  # tokens of the whole document; more than N where it was cut
    text_start: int  # character of the document at which `text` starts
    text: str  # the characters that these tokens cover
    ids: NDArray[np.int32]  # [N]
    entropy: NDArray[np.float32]  # [N] nats
    confidence: NDArray[np.float32]  # [N]
    margin: NDArray[np.float32]  # [N]
    surprisal: NDArray[np.float32]  # [N] nats
    rank: NDArray[np.int32]  # [N]
    start: NDArray[np.int32]  # [N] characters [start, end) of the document's own text; -1 in the chat template
    end: NDArray[np.int32]  # [N]
    role: NDArray[np.uint8]  # [N] places in ROLE_NAMES

    @property
    def display(self) -> list[str]:
        """[N] the characters of each token; empty in the chat template."""
        spans = zip((self.start - self.text_start).tolist(), (self.end - self.text_start).tolist(), strict=True)
        return [self.text[a:b] if b > 0 else "" for a, b in spans]


@dataclass(frozen=True, repr=False)
class ScoredRows(ShortRepr):
    """R rows with N tokens in all, end to end; the tokens of row i are [offsets[i], offsets[i + 1])."""

    document: NDArray[np.int32]  # [R]
    piece: NDArray[np.int32]  # [R]
    document_tokens: NDArray[np.int32]  # [R]
    text_start: NDArray[np.int32]  # [R]
    text: tuple[str, ...]  # [R]
    offsets: NDArray[np.int64]  # [R + 1]
    ids: NDArray[np.int32]  # [N]
    entropy: NDArray[np.float32]  # [N] nats
    confidence: NDArray[np.float32]  # [N]
    margin: NDArray[np.float32]  # [N]
    surprisal: NDArray[np.float32]  # [N] nats
    rank: NDArray[np.int32]  # [N]
    start: NDArray[np.int32]  # [N]
    end: NDArray[np.int32]  # [N]
    role: NDArray[np.uint8]  # [N]

    def __post_init__(self) -> None:
        rows, tokens = len(self.offsets) - 1, int(self.offsets[-1])
        for names, n in ((_TOKEN, tokens), ((*_ROW, "text"), rows)):
            for name in names:
                if len(getattr(self, name)) != n:
                    raise ValueError(f"{name} must be [{n}], got [{len(getattr(self, name))}]")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> ScoredRow:
        """Row i; its arrays share memory with these."""
        piece = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        head: dict[str, Any] = {name: int(getattr(self, name)[i]) for name in _ROW}
        return ScoredRow(**head, text=self.text[i], **{name: getattr(self, name)[piece] for name in _TOKEN})

    @classmethod
    def join(cls, parts: list[ScoredRows]) -> ScoredRows:
        """The rows of all parts, in order."""
        names, lengths = (*_ROW, *_TOKEN), [np.diff(part.offsets) for part in parts]
        return cls(
            text=tuple(text for part in parts for text in part.text),
            offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
        )


def to_parquet(rows: ScoredRows) -> bytes:
    """Rows as one Parquet file."""
    offsets = pa.array(rows.offsets.astype(np.int32))
    table = {name: pa.array(getattr(rows, name)) for name in _ROW} | {"text": pa.array(rows.text, pa.string())}
    table |= {name: pa.ListArray.from_arrays(offsets, pa.array(getattr(rows, name))) for name in _TOKEN}
    element = "{}.list.element".format
    coding = {element(name): "BYTE_STREAM_SPLIT" for name in _FLOATS}
    coding |= {element(name): "DELTA_BINARY_PACKED" for name in _POSITIONS}
    repeated = [element(name) for name in ("ids", "rank", "role")]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(table), buffer, compression="zstd", use_dictionary=repeated, column_encoding=coding)
    return bytes(buffer.getvalue().to_pybytes())


def from_parquet(content: bytes) -> ScoredRows:
    """The rows that `to_parquet` packed."""
    (table,) = pq.read_table(pa.BufferReader(content)).combine_chunks().to_batches()
    return ScoredRows(
        text=tuple(table.column("text").to_pylist()),
        offsets=table.column("ids").offsets.to_numpy().astype(np.int64),
        **{name: table.column(name).to_numpy().astype(kind) for name, kind in _ROW.items()},
        **{name: table.column(name).flatten().to_numpy().astype(kind) for name, kind in _TOKEN.items()},
    )
