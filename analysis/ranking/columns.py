"""What a corpus says of its documents beside their texts, such as a domain: from the store, or from the corpus file.

A store holds these columns, unless it is older than that. Then, if the very same file as its manifest names lies in the
store's folder or beside it, the file's columns are used.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path

from analysis.ranking.document_scores import ScoredDocuments
from data.corpus.store import CorpusStore
from data.corpus.text_files import CorpusSpec, column_names_of, file_facts, file_values
from model.arguments import check_choice
from model.storage.places import Address

MOST_GROUPS = 200  # values of a column that groups documents; a column with more names documents
LOOKED_AT = 2000  # documents that say whether a column does


def column_names(store: CorpusStore) -> tuple[str, ...]:
    """The columns of the corpus beside its texts."""
    if own := store.column_names:
        return own
    file, text = corpus_file(store), store.manifest["data"]["column"]
    return () if file is None else tuple(name for name in column_names_of(_spec(store, file)) if name != text)


@lru_cache(maxsize=8)
def grouping_columns(side: ScoredDocuments) -> tuple[str, ...]:
    """The columns with few values, by the first documents, which are read once for all columns."""
    store, names = side.store, column_names(side.store)
    values: dict[str, set[str]] = {name: set() for name in names}
    if store.column_names:
        for name, some in store.columns(most=LOOKED_AT).items():
            values[name].update(map(_text, some))
    elif (file := corpus_file(store)) is not None:
        for _, record, _ in islice(file_values(_spec(store, file)), LOOKED_AT):
            for name in names:
                values[name].add(_text(record.get(name)))
    return tuple(name for name in names if 1 < len(values[name]) <= MOST_GROUPS)


@lru_cache(maxsize=4)
def column_values(side: ScoredDocuments, name: str) -> tuple[str, ...]:
    """[D] a column's value of each document, as text; the empty text where there is none.

    Raises:
        MicroStepError: the corpus has no such column.
    """
    check_choice("column", name, column_names(side.store))
    values = dict(_values(side.store, name))
    return tuple(values.get(number, "") for number in side.number.tolist())


def corpus_file(store: CorpusStore) -> Path | None:
    """The file that was scored, if it lies beside the store or in it, and has not changed."""
    data = store.manifest["data"]
    if data["kind"] != "file" or isinstance(store.path, Address):
        return None
    for folder in (store.path, store.path.resolve().parent):
        file = folder / Path(str(data["name"])).name  # a manifest names no file elsewhere
        if file.is_file() and file_facts(file).revision == data["revision"]:
            return file
    return None


def _values(store: CorpusStore, name: str) -> Iterator[tuple[int, str]]:
    """The number of each document, and its value in a column."""
    if store.column_names:
        (values,) = store.columns([name]).values()
        yield from ((number, _text(value)) for number, value in enumerate(values))
    elif (file := corpus_file(store)) is not None:
        for number, (_, record, _) in enumerate(file_values(_spec(store, file), others=(name,))):
            yield number, _text(record.get(name))


def _spec(store: CorpusStore, file: Path) -> CorpusSpec:
    data = store.manifest["data"]
    return CorpusSpec(str(file), data["column"], data["documents"])


def _text(value: object) -> str:
    return "" if value is None else str(value)
