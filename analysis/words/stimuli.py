"""The texts of a table with its other columns: stimuli, whose words or regions are scored.

A row of the table is a text; or it is a region of a text, and consecutive rows of one id make up the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.words.options import StimulusOptions
from analysis.words.spans import Spans, region_spans, split_regions, word_spans
from data.corpus.document_columns import json_cell
from data.corpus.documents import CorpusEntry, CorpusSpec, corpus_entry, open_corpus
from data.corpus.scored_rows import ScoredRows
from data.corpus.store import CorpusStore
from data.corpus.text_files import column_names_of
from model.errors import TextError
from model.short_repr import ShortRepr


@dataclass(frozen=True, repr=False)
class Stimuli(ShortRepr):
    """D texts, the words or regions of each, and the table that they come from."""

    texts: tuple[str, ...]  # [D]
    spans: tuple[Spans, ...]  # [D] of the words or regions
    entries: tuple[CorpusEntry, ...]  # [D]; () of a store
    columns: pd.DataFrame  # of all rows of the table
    first_row: NDArray[np.int64]  # [D] the row of each text, or of its first region
    region_rows: bool  # a row of the table is a region

    def rows(self, document: NDArray[np.int64], position: NDArray[np.int64]) -> pd.DataFrame:
        """The columns of words, by their texts and their positions in them."""
        row = self.first_row[document] + (np.maximum(position, 0) if self.region_rows else 0)
        return self.columns.iloc[row].reset_index(drop=True)


def read_stimuli(data: str | Path | pd.DataFrame, options: StimulusOptions) -> Stimuli:
    """Read a file, a data set of the hub, or a pandas table.

    Raises:
        TextError: it cannot be read, has no such column, or a row has no text, no valid regions, or another's id.
    """
    ids = () if options.rows == "regions" else options.id_columns
    if isinstance(data, pd.DataFrame):
        name, entries = "the table", _frame_entries(data, options.column)
        order = list(map(str, data.columns))
    else:
        spec = CorpusSpec(str(data), options.column, "line", ids=ids)
        corpus = open_corpus(spec)
        name, entries = str(data), list(corpus.entries())
        order = column_names_of(spec) if corpus.facts.kind == "file" else []
    others = dict.fromkeys(column for entry in entries for column in entry.columns)
    known = list(dict.fromkeys([*order, options.column, *others]))
    for column in (*options.id_columns, *([options.regions] if options.regions else [])):
        if column not in known:
            raise TextError(f"{name} has no column {column!r}; it has {', '.join(known)}")
    if isinstance(data, pd.DataFrame):
        columns = data.reset_index(drop=True)
        _check_unique(columns, ids)
    else:
        cells = {
            column: [_value(entry) if column == options.column else entry.columns.get(column) for entry in entries]
            for column in known
        }
        columns = pd.DataFrame({column: column_series(values) for column, values in cells.items()})
    if options.rows == "regions":
        return _from_region_rows(name, entries, columns, options)
    spans: list[Spans] = []
    for number, entry in enumerate(entries, 1):
        if entry.document is None or not entry.document.text.strip():
            raise TextError(f"{name}, row {number}: {entry.problem or 'the text is empty'}")
        try:
            spans.append(_spans_of(entry, options))
        except TextError as error:
            raise TextError(f"{name}, row {number}: {error}") from None
    texts = tuple(entry.document.text for entry in entries if entry.document is not None)
    return Stimuli(texts, tuple(spans), tuple(entries), columns, np.arange(len(texts)), region_rows=False)


def stored_stimuli(store: CorpusStore, rows: ScoredRows) -> Stimuli:
    """The documents of a store, their white-space words, and their columns."""
    texts: list[list[str]] = [[] for _ in range(store.documents)]
    at = [0] * store.documents
    for document, start, text in zip(rows.document.tolist(), rows.text_start.tolist(), rows.text, strict=True):
        texts[document].append(" " * (start - at[document]) + text[max(at[document] - start, 0) :])
        at[document] = max(at[document], start + len(text))
    joined = tuple("".join(parts) for parts in texts)
    columns = pd.DataFrame({name: column_series(values) for name, values in store.columns().items()})
    columns = columns if len(columns.columns) else pd.DataFrame(index=range(store.documents))
    return Stimuli(joined, tuple(map(word_spans, joined)), (), columns, np.arange(len(joined)), region_rows=False)


def column_series(values: Sequence[object]) -> pd.Series:
    """Values of a column: of one kind as that kind, of several kinds or nested as text (JSON, but for texts)."""
    plain = [json_cell(value) if isinstance(value, list | dict) else value for value in values]
    series = pd.Series(plain, dtype=object).convert_dtypes()
    if series.dtype == object:
        series = pd.Series(
            [value if value is None or isinstance(value, str) else json_cell(value) for value in plain], dtype="str"
        )
    return series


def _frame_entries(table: pd.DataFrame, column: str) -> list[CorpusEntry]:
    if column not in table:
        raise TextError(f"the table has no column {column!r}; it has {', '.join(map(str, table.columns))}")
    if not table.columns.is_unique:
        raise TextError("the table has two columns of one name; rename one")
    cells = [None if isinstance(value, float) and np.isnan(value) else value for value in table[column].tolist()]
    others = [str(name) for name in table.columns if name != column]
    records: Iterable[tuple[object, ...]] = zip(*(table[name].tolist() for name in others), strict=True)
    records = records if others else ((),) * len(cells)
    return [
        corpus_entry(number, value, dict(zip(others, record, strict=True)))
        for number, (value, record) in enumerate(zip(cells, records, strict=True))
    ]


def _check_unique(columns: pd.DataFrame, ids: Sequence[str]) -> None:
    if ids and (twice := np.flatnonzero(columns.duplicated(list(ids)))).size:
        raise TextError(f"row {twice[0] + 1} of the table has the id of a row before it; give more id columns")


def _value(entry: CorpusEntry) -> object:
    document = entry.document
    if document is None:
        return None
    if len(document.messages) == 1 and document.messages[0].role == "text":
        return document.text
    return json.dumps([{"role": each.role, "content": each.content} for each in document.messages], ensure_ascii=False)


def _spans_of(entry: CorpusEntry, options: StimulusOptions) -> Spans:
    assert entry.document is not None
    if options.regions is None:
        return word_spans(entry.document.text)
    return region_spans(entry.document.text, split_regions(entry.columns.get(options.regions)))


def _from_region_rows(
    name: str, entries: Sequence[CorpusEntry], columns: pd.DataFrame, options: StimulusOptions
) -> Stimuli:
    """Texts from rows that are their regions: consecutive rows of one id."""
    texts: list[str] = []
    spans: list[list[tuple[int, int]]] = []
    first: list[int] = []
    seen: set[tuple[str, ...]] = set()
    last: tuple[str, ...] | None = None
    for row, entry in enumerate(entries):
        cell = "" if entry.document is None else entry.document.text
        region = cell.strip() if options.join_with else cell
        if not region.strip():
            raise TextError(f"{name}, row {row + 1}: {entry.problem or 'the region is empty'}")
        cells = [entry.columns.get(column) for column in options.id_columns]
        if any(each is None or each is pd.NA or each == "" or each != each for each in cells):  # NaN is not itself
            raise TextError(f"{name}, row {row + 1}: a cell of --id is empty, so its text is unknown; fill it in")
        key = tuple(map(str, cells))
        if key != last:
            if key in seen:
                raise TextError(
                    f"{name}, row {row + 1}: rows of the id {', '.join(key)} stand apart;"
                    " keep the rows of a text together"
                )
            seen.add(key)
            texts.append("")
            spans.append([])
            first.append(row)
            last = key
        joined = texts[-1] + (options.join_with if spans[-1] else "")
        spans[-1].append((len(joined), len(joined) + len(region)))
        texts[-1] = joined + region
    return Stimuli(
        tuple(texts),
        tuple(np.array(each, dtype=np.int64) for each in spans),
        tuple(corpus_entry(number, text, {}) for number, text in enumerate(texts)),
        columns,
        np.array(first, dtype=np.int64),
        region_rows=True,
    )
