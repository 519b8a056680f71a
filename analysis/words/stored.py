"""The table of a store of scores, or of two stores of one corpus, read document by document."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.score_registry import Unit
from analysis.words.pieces import PIECE, TablePieces
from analysis.words.spans import word_spans
from analysis.words.stimuli import ROW, Stimuli, column_of, kinds_of
from analysis.words.tables import token_tables, word_tables
from data.corpus.document_columns import Columns
from data.corpus.scored_rows import ScoredRows
from data.corpus.store import CorpusStore
from model.errors import MicroStepError

OTHER_TEXTS = "the stores hold different texts; score the same corpus in the same way with both"


def store_pieces(stores: tuple[CorpusStore, ...], by: str, unit: Unit) -> TablePieces:
    """The scores of stores, with the columns of their first one's documents. One shard of each is held at a time.

    Raises:
        MicroStepError: the stores are of different texts.
    """
    if len({store.documents for store in stores}) > 1:
        raise MicroStepError(OTHER_TEXTS)
    whole = stores[0].documents

    def pieces() -> Iterator[pd.DataFrame]:
        readers = [_Reader(store) for store in stores]
        columns = _ColumnReader(stores[0])
        ends = [min(mark.next[0], whole) for mark in stores[0].marks[:-1]]
        for begin, end in pairwise(dict.fromkeys([0, *ends, whole])):  # a document of several shards is in one piece
            rows = [reader.until(end, begin) for reader in readers]
            texts, *others = (_texts(each, end - begin) for each in rows)
            if any(other != texts for other in others):
                raise MicroStepError(OTHER_TEXTS)
            frame, sizes = columns.next(end - begin)
            stimuli = Stimuli(
                texts, tuple(map(word_spans, texts)), (), frame, np.arange(len(texts)), first=begin, row_size=sizes
            )
            sides = dict(zip(("a", "b") if others else ("",), rows, strict=True))
            yield from (word_tables if by == "word" else token_tables)(stimuli, sides, unit, PIECE)

    notes = tuple(f"{store.facts.name}: {note}" for store in stores for note in store.notes)
    return TablePieces(pieces, whole, [store.facts.name for store in stores], by, unit, lambda: notes)


def _texts(rows: ScoredRows, count: int) -> tuple[str, ...]:
    """The texts of documents from their windows; what no token covers is white space."""
    texts: list[list[str]] = [[] for _ in range(count)]
    at = [0] * count
    for document, start, text in zip(rows.document.tolist(), rows.text_start.tolist(), rows.text, strict=True):
        texts[document].append(" " * (start - at[document]) + text[max(at[document] - start, 0) :])
        at[document] = max(at[document], start + len(text))
    return tuple("".join(parts) for parts in texts)


class _Reader:
    """The rows of a store in order, some documents at a time."""

    def __init__(self, store: CorpusStore) -> None:
        self._shards = store.shards()
        self._held: list[ScoredRows] = []

    def until(self, end: int, begin: int) -> ScoredRows:
        """The next rows, of documents before `end`; the number of document `begin` becomes 0."""
        while not self._held or self._held[-1].document[-1] < end:
            if (shard := next(self._shards, None)) is None:
                break
            self._held.append(shard)
        rows = ScoredRows.join(self._held)
        split = int(np.searchsorted(rows.document, end))
        self._held = [rows.part(split, len(rows))] if split < len(rows) else []
        found = rows.part(0, split)
        return replace(found, document=found.document - begin)


class _ColumnReader:
    """The columns of a store's documents in order, some documents at a time."""

    def __init__(self, store: CorpusStore) -> None:
        marks = range(len(store.marks))
        self._kinds = kinds_of(store.columns_of(number) for number in marks)
        self._parts = ((store.columns_of(number), store.marks[number].documents) for number in marks)
        self._held: Columns = {name: [] for name in self._kinds}
        self._count = 0  # documents whose columns are held

    def next(self, count: int) -> tuple[pd.DataFrame, NDArray[np.int64]]:
        """The columns of the next documents, and the characters of each one's texts."""
        while self._count < count:
            part, documents = next(self._parts)
            for name, values in self._held.items():
                values += part.get(name) or [None] * documents
            self._count += documents
        taken = {name: values[:count] for name, values in self._held.items()}
        self._held = {name: values[count:] for name, values in self._held.items()}
        self._count -= count
        sizes = np.full(count, ROW, dtype=np.int64)
        for values in taken.values():
            sizes += [len(value) if isinstance(value, str) else len(str(value)) for value in values]
        columns = {name: column_of(values, self._kinds[name]) for name, values in taken.items()}
        return pd.DataFrame(columns, index=range(count)), sizes
