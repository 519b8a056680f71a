"""Sums of the scores of each document of a store, read one shard at a time: memory grows with documents, not tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.corpus.rule_inputs import row_firsts, row_of
from data.corpus.scored_rows import ROLE_NAMES
from data.corpus.store import CorpusStore
from model.progress import Progress
from model.reading.declared_sizes import need_readable_at_once
from model.short_repr import ShortRepr
from model.text.document import TEMPLATE

SUMMED = ("entropy", "confidence", "surprisal")
BEGINNING = 80  # characters of a document that a table shows
CONTENT = tuple(name for name in ROLE_NAMES if name != TEMPLATE)
_SPACED = 4 * BEGINNING  # characters from which that is made, since white space is shortened
_PER_ROW = ("document", "document_tokens", "text_start", "text")
_PER_TOKEN = (*SUMMED, "start", "end", "role")
Floats = NDArray[np.float64]


@dataclass(frozen=True, repr=False, eq=False)
class ScoredDocuments(ShortRepr):
    """The D documents of a store. Scores are sums over the tokens that have them, by role."""

    store: CorpusStore
    number: NDArray[np.int64]  # [D] index in the corpus
    key: tuple[bytes, ...]  # [D] hash of the text that was scored
    beginning: tuple[str, ...]  # [D] the first characters of the text, on one line
    characters: NDArray[np.int64]  # [D] of the text
    cut: NDArray[np.bool_]  # [D] whether the store holds only a part of its tokens
    tokens: Floats  # [D, len(ROLE_NAMES)] tokens with scores
    bytes: Floats  # [D, len(ROLE_NAMES)] in UTF-8, of their characters
    sums: Floats  # [D, len(ROLE_NAMES), len(SUMMED)] nats, or probabilities

    def __len__(self) -> int:
        return len(self.number)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that have scored tokens."""
        return tuple(name for name, some in zip(ROLE_NAMES, self.tokens.sum(0).tolist(), strict=True) if some)


def document_scores(store: CorpusStore, progress: Progress | None = None) -> ScoredDocuments:
    """Read the scores of each document.

    Args:
        store: is read shard by shard, and only the columns that are needed.
        progress: is told the share of shards that were read.

    Raises:
        TextError: a shard is gone or damaged.
    """
    parts: list[dict[str, Any]] = []
    texts = _Texts()
    for done, batch in enumerate(read_batches(store, [*_PER_ROW, *_PER_TOKEN]), 1):
        parts.append(_sums(batch))
        texts.add(parts[-1]["document"].tolist(), parts[-1].pop("text"))
        if progress is not None:
            progress(done / len(store.marks))
    keys, beginnings = texts.done()
    rows = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    first = _firsts(rows["document"])
    summed = {name: np.add.reduceat(rows[name], first) for name in ("characters", "held", "tokens", "bytes", "sums")}
    return ScoredDocuments(
        store,
        rows["document"][first],
        keys,
        beginnings,
        summed["characters"],
        summed["held"] < rows["document_tokens"][first],
        *(summed[name] for name in ("tokens", "bytes", "sums")),
    )


class _Texts:
    """Hashes and beginnings of documents, whose windows follow each other. Only one document is held at a time."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._beginnings: list[str] = []
        self._number: int | None = None
        self._hash, self._beginning = hashlib.blake2b(digest_size=16), ""

    def add(self, documents: list[int], texts: list[str]) -> None:
        for number, text in zip(documents, texts, strict=True):
            if number != self._number:
                self._close()
                self._number = number
            self._hash.update(text.encode("utf-8"))
            self._beginning = (self._beginning + text[:_SPACED])[:_SPACED]

    def done(self) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
        self._close()
        return tuple(self._keys), tuple(self._beginnings)

    def _close(self) -> None:
        if self._number is not None:
            self._keys.append(self._hash.digest())
            self._beginnings.append(" ".join(self._beginning.split())[:BEGINNING])
        self._hash, self._beginning = hashlib.blake2b(digest_size=16), ""


def _firsts(document: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first row of each document."""
    return np.flatnonzero(np.diff(document, prepend=-1))


def read_batches(store: CorpusStore, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Some columns of a store, shard by shard."""
    for number in range(len(store.marks)):
        with pq.ParquetFile(pa.BufferReader(store.content(number))) as file:
            need_readable_at_once(file, f"shard {number} of {store.path}", columns)
            yield from file.read(columns).combine_chunks().to_batches()


def _sums(batch: pa.RecordBatch) -> dict[str, Any]:
    """Sums over the tokens of each of the R rows of a shard, which has at least one."""
    rows = batch.num_rows
    lists = batch.column("role")
    offsets = lists.offsets.to_numpy().astype(np.int64)
    row = row_of(offsets)
    values = {name: batch.column(name).flatten().to_numpy() for name in _PER_TOKEN}
    texts: list[str] = batch.column("text").to_pylist()
    place = row * len(ROLE_NAMES) + values["role"]

    def by_role(weight: NDArray[Any] | None, chosen: NDArray[np.bool_]) -> Floats:
        counted = np.bincount(place[chosen], None if weight is None else weight[chosen], rows * len(ROLE_NAMES))
        return counted.astype(np.float64).reshape(rows, len(ROLE_NAMES))

    known = np.isfinite(values["entropy"]) & np.isfinite(values["surprisal"])
    size = _bytes(texts, batch.column("text_start").to_numpy(), offsets, values["start"], values["end"])
    return {
        "document": batch.column("document").to_numpy().astype(np.int64),
        "document_tokens": batch.column("document_tokens").to_numpy().astype(np.int64),
        "text": texts,
        "characters": np.array([len(text) for text in texts], dtype=np.int64),
        "held": np.diff(offsets),
        "tokens": by_role(None, known),
        "bytes": by_role(size, known),
        "sums": np.stack([by_role(values[name].astype(np.float64), known) for name in SUMMED], axis=-1),
    }


def _bytes(
    texts: list[str],
    text_start: NDArray[np.integer],
    offsets: NDArray[np.int64],
    start: NDArray[np.integer],
    end: NDArray[np.integer],
) -> NDArray[np.int64]:
    """[N] UTF-8 bytes of each token; a character of several tokens counts with the first. 0 in a template."""
    code = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32)
    width = 1 + (code > 0x7F).astype(np.int64) + (code > 0x7FF) + (code > 0xFFFF)
    reach = np.concatenate([[0], np.cumsum(width)])
    base = np.concatenate([[0], np.cumsum([len(text) for text in texts])])[:-1] - text_start
    inside = start >= 0
    shift = np.where(inside, base[row_of(offsets)], 0)
    begin = np.where(inside, start, 0).astype(np.int64)
    shared = np.zeros(len(start), dtype=bool)
    shared[1:] = (start[1:] < end[:-1]) & inside[1:]
    shared[row_firsts(offsets)] = False
    stop = np.where(inside, end, 0).astype(np.int64)
    begin = np.minimum(begin + shared, stop)
    size: NDArray[np.int64] = reach[stop + shift] - reach[begin + shift]
    return size
