"""The texts of a table with its other columns: stimuli, whose words or regions are scored.

A row of the table is a text; or it is a region of a text, and consecutive rows of one id make up the text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.words.options import StimulusOptions
from analysis.words.spans import Spans, region_spans, split_regions, word_spans
from data.corpus.document_columns import json_cell
from data.corpus.documents import Corpus, CorpusEntry, CorpusSpec, corpus_entry, open_corpus
from data.corpus.text_files import column_names_of
from model.errors import TextError
from model.reading.json_text import parse_json
from model.short_repr import ShortRepr
from model.text.document import PLAIN, Document

Kinds = Mapping[str, str]  # of columns, by name: as pandas calls them, or TEXT
ROW = 100  # the size of a row of short texts, in characters
TEXT = "text"  # the kind of a column with values of several kinds, or nested ones, or dates: each becomes a text


@dataclass(frozen=True, repr=False)
class Stimuli(ShortRepr):
    """D texts, the words or regions of each, and the rows of the table that they come from."""

    texts: tuple[str, ...]  # [D]
    spans: tuple[Spans, ...]  # [D] of the words or regions
    documents: tuple[Document, ...]  # [D]; () of a store
    columns: pd.DataFrame  # of the table's rows
    first_row: NDArray[np.int64]  # [D] the row of each text, or of its first region
    region_rows: bool = False  # a row of the table is a region
    first: int = 0  # the number of the first of these texts among all
    row_size: NDArray[np.int64] | None = None  # [rows] characters of each row's texts; None: not counted

    def row_of(self, document: NDArray[np.int64], position: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of words in `columns`, by their texts and their positions in them."""
        row: NDArray[np.int64] = self.first_row[document] + (np.maximum(position, 0) if self.region_rows else 0)
        return row


@dataclass(frozen=True)
class _Text:
    """A text, and the rows of the table that it comes from."""

    document: Document
    spans: Spans
    rows: list[CorpusEntry]


@dataclass(frozen=True, repr=False)
class StimulusTable(ShortRepr):
    """A table of texts in a file or on the hub. It was checked, and is read in pieces, as often as needed."""

    name: str
    options: StimulusOptions
    corpus: Corpus
    kinds: Kinds  # of all columns, in the order in which they come out
    texts: int
    size: int  # characters of these columns in a table by word, about

    def pieces(self, characters: int | None = None) -> Iterator[Stimuli]:
        """The texts in order, in pieces of whole texts.

        Args:
            characters: a piece ends with the text with which its rows hold so many; None: one piece holds all.

        Raises:
            TextError: the file was changed since it was checked.
        """
        held: list[_Text] = []
        sizes: list[int] = []
        first = size = 0
        for text in _texts(self.name, self.corpus.entries(), self.options):
            held.append(text)
            sizes += [_characters(row) for row in text.rows]
            size += sum(sizes[-len(text.rows) :])
            if characters is not None and size >= characters:
                yield self._piece(held, first, sizes)
                first, held, sizes, size = first + len(held), [], [], 0
        if held:
            yield self._piece(held, first, sizes)
        if not self.corpus.unchanged():
            raise TextError(f"{self.name} was changed while it was read; run the command again")

    def _piece(self, held: Sequence[_Text], first: int, sizes: Sequence[int]) -> Stimuli:
        rows = [row for text in held for row in text.rows]
        own = self.options.column
        columns = {
            name: column_of([_value(row) if name == own else row.columns.get(name) for row in rows], kind)
            for name, kind in self.kinds.items()
        }
        return _stimuli(held, pd.DataFrame(columns), self.options, first, np.array(sizes, dtype=np.int64))


def read_stimuli(data: str | Path | pd.DataFrame, options: StimulusOptions) -> Stimuli:
    """Read a file, a data set of the hub, or a pandas table, as a whole.

    Raises:
        TextError: it cannot be read, has no such column, or a row has no text, no valid regions, or another's id.
    """
    if not isinstance(data, pd.DataFrame):
        (found,) = open_stimuli(data, options).pieces()
        return found
    name, columns = "the table", data.reset_index(drop=True)
    entries = _frame_entries(data, options.column)
    _check_columns(name, list(map(str, data.columns)), options)
    if options.rows == "texts":
        _check_unique(columns, options.id_columns)
    return _stimuli(list(_texts(name, entries, options)), columns, options)


def open_stimuli(data: str | Path, options: StimulusOptions) -> StimulusTable:
    """Read a file or a data set of the hub once, to check each row and to learn what kind each column is of.

    Raises:
        TextError: as `read_stimuli`.
    """
    name = str(data)
    spec = CorpusSpec(name, options.column, "line", ids=() if options.rows == "regions" else options.id_columns)
    corpus = open_corpus(spec)
    first = next(iter(corpus.entries()))
    names = column_names_of(spec) if corpus.facts.kind == "file" else []
    _check_columns(name, list(dict.fromkeys([*names, options.column, *first.columns])), options)
    seen: dict[str, set[type]] = {column: set() for column in [*names, options.column]}
    texts = size = 0
    for text in _texts(name, corpus.entries(), options):
        texts += 1
        size += sum(map(_characters, text.rows)) * (1 if options.rows == "regions" else len(text.spans))
        for row in text.rows:
            seen[options.column].add(str)
            for column, value in row.columns.items():
                seen.setdefault(column, set()).add(_type(value))
    kinds = {column: _kind(types) for column, types in seen.items()}
    return StimulusTable(name, options, corpus, kinds, texts, size)


def _stimuli(
    held: Sequence[_Text],
    columns: pd.DataFrame,
    options: StimulusOptions,
    first: int = 0,
    row_size: NDArray[np.int64] | None = None,
) -> Stimuli:
    counts = [len(text.rows) for text in held]
    return Stimuli(
        tuple(text.document.text for text in held),
        tuple(text.spans for text in held),
        tuple(text.document for text in held),
        columns,
        np.cumsum([0, *counts[:-1]], dtype=np.int64),
        options.rows == "regions",
        first,
        row_size,
    )


# --- columns


class _Huge(int):
    """Stands for whole numbers that fit into no column of numbers."""


def _type(value: object) -> type:
    return _Huge if type(value) is int and not -(2**63) <= value < 2**63 else type(value)


def _kind(types: set[type]) -> str:
    """The kind of a column with values of these types."""
    types = types - {type(None)}
    if types <= {str}:
        return "str"
    if types == {bool}:
        return "boolean"
    return "Int64" if types == {int} else "Float64" if types <= {int, float} else TEXT


def kinds_of(parts: Iterable[Mapping[str, Iterable[object]]]) -> dict[str, str]:
    """The kind of each column, from the values in each of its parts."""
    seen: dict[str, set[type]] = {}
    for part in parts:
        for name, values in part.items():
            seen.setdefault(name, set()).update(map(_type, values))
    return {name: _kind(types) for name, types in seen.items()}


def column_of(values: Sequence[object], kind: str) -> pd.Series:
    """Values as a column of a kind; of TEXT, what is no text becomes one: dates as ISO 8601, all else as JSON."""
    if kind != TEXT:
        return pd.Series(pd.array(list(values), dtype=kind))
    texts = [value if value is None or isinstance(value, str) else _text(value) for value in values]
    return pd.Series(texts, dtype="str")


def _text(value: object) -> str:
    cell = json_cell(value)
    if cell is None:  # what JSON cannot hold, such as a duration
        return str(value)
    return cell if isinstance(value, list | dict | bool | int | float) else str(parse_json(cell))


def _characters(row: CorpusEntry) -> int:
    """The size of a row: the characters of its texts, of nested values about as many, and what all rows take."""
    own = ROW + (0 if row.document is None else len(row.document.text))
    return own + sum(len(value if isinstance(value, str) else str(value)) for value in row.columns.values())


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


def _check_columns(name: str, known: Sequence[str], options: StimulusOptions) -> None:
    for column in (*options.id_columns, *([options.regions] if options.regions else [])):
        if column not in known:
            raise TextError(f"{name} has no column {column!r}; it has {', '.join(known)}")


def _check_unique(columns: pd.DataFrame, ids: Sequence[str]) -> None:
    if ids and (twice := np.flatnonzero(columns.duplicated(list(ids)))).size:
        raise TextError(f"row {twice[0] + 1} of the table has the id of a row before it; give more id columns")


def _value(entry: CorpusEntry) -> object:
    document = entry.document
    if document is None:
        return None
    if len(document.messages) == 1 and document.messages[0].role == PLAIN:
        return document.text
    return json.dumps([{"role": each.role, "content": each.content} for each in document.messages], ensure_ascii=False)


# --- texts


def _texts(name: str, entries: Iterable[CorpusEntry], options: StimulusOptions) -> Iterator[_Text]:
    """The texts of a table, one after the other.

    Raises:
        TextError: a row has no text, or no valid regions.
    """
    if options.rows == "regions":
        yield from _joined_regions(name, entries, options)
        return
    for number, entry in enumerate(entries, 1):
        if entry.document is None or not entry.document.text.strip():
            raise TextError(f"{name}, row {number}: {entry.problem or 'the text is empty'}")
        try:
            yield _Text(entry.document, _spans_of(entry.document, entry, options), [entry])
        except TextError as error:
            raise TextError(f"{name}, row {number}: {error}") from None


def _spans_of(document: Document, entry: CorpusEntry, options: StimulusOptions) -> Spans:
    if options.regions is None:
        return word_spans(document.text)
    return region_spans(document.text, split_regions(entry.columns.get(options.regions)))


def _joined_regions(name: str, entries: Iterable[CorpusEntry], options: StimulusOptions) -> Iterator[_Text]:
    """Texts from rows that are their regions: consecutive rows of one id."""
    seen: set[int] = set()  # hashes, which take less memory than the ids
    last: tuple[str, ...] | None = None
    rows: list[CorpusEntry] = []
    regions: list[str] = []
    for number, entry in enumerate(entries, 1):
        cell = "" if entry.document is None else entry.document.text
        region = cell.strip() if options.join_with else cell
        if not region.strip():
            raise TextError(f"{name}, row {number}: {entry.problem or 'the region is empty'}")
        cells = [entry.columns.get(column) for column in options.id_columns]
        if any(each is None or each is pd.NA or each == "" or each != each for each in cells):  # NaN is not itself
            raise TextError(f"{name}, row {number}: a cell of --id is empty, so its text is unknown; fill it in")
        key = tuple(map(str, cells))
        if key != last:
            if hash(key) in seen:
                raise TextError(
                    f"{name}, row {number}: rows of the id {', '.join(key)} stand apart;"
                    " keep the rows of a text together"
                )
            if rows:
                yield _joined(regions, rows, options.join_with)
            seen.add(hash(key))
            rows, regions, last = [], [], key
        rows.append(entry)
        regions.append(region)
    if rows:
        yield _joined(regions, rows, options.join_with)


def _joined(regions: Sequence[str], rows: list[CorpusEntry], between: str) -> _Text:
    sizes = np.array([len(region) for region in regions], dtype=np.int64)
    starts = np.cumsum(sizes + len(between)) - sizes - len(between)
    return _Text(Document.plain(between.join(regions)), np.stack([starts, starts + sizes], axis=1), rows)
