"""A corpus as a stream of documents: a text file, a table (CSV, TSV, JSON, Parquet), or a data set of the hub.

Documents come in a fixed order and carry their index in it, so a reader can resume anywhere. This module knows nothing
about tokens, models or stores.
"""

from array import array
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from data.corpus.text_files import (
    SUFFIXES,
    CorpusSpec,
    Cut,
    DataFacts,
    Value,
    file_facts,
    file_place,
    file_values,
    hub_facts,
    hub_values,
)
from model.errors import TextError
from model.storage.places import Address, size_of
from model.text.conversation import read_conversation
from model.text.document import Document

__all__ = [
    "MAX_CHARACTERS",
    "SUFFIXES",
    "Corpus",
    "CorpusEntry",
    "CorpusSpec",
    "Cut",
    "DataFacts",
    "corpus_entry",
    "open_corpus",
]

MAX_CHARACTERS = 20_000_000  # of one document


@dataclass(frozen=True)
class CorpusEntry:
    index: int  # its index in the corpus, from 0
    document: Document | None  # None if it is not a valid text
    problem: str | None  # why it is not valid
    share: float | None  # share of the corpus read so far, 0 to 1, approximate; None if unknown
    columns: Mapping[str, object] = field(default_factory=dict)  # the other columns of its row


@dataclass(frozen=True)
class Corpus:
    """Documents that can be streamed from any point on, as often as needed."""

    spec: CorpusSpec
    facts: DataFacts

    def entries(self, start: int = 0, others: Collection[str] | None = None) -> Iterator[CorpusEntry]:
        """Stream the documents from index `start` on.

        Args:
            start: the first document's index.
            others: columns that are needed beside the text and the ids, which saves reading the others of a Parquet
                file; None: all.

        Raises:
            TextError: the file or data set cannot be read, is damaged, or has no such column.
        """
        if self.facts.kind == "hub":
            values: Iterator[Value] = hub_values(self.spec, self.facts, start)
        else:
            values = file_values(self.spec, start, others)
        for index, (value, columns, share) in enumerate(values, start):
            yield corpus_entry(index, value, columns, share)

    def unchanged(self) -> bool:
        """True if the file has not changed since it was opened; a hub commit never changes."""
        return self.facts.kind == "hub" or file_facts(file_place(self.spec)) == self.facts

    @property
    def file_size(self) -> int | None:
        """Bytes on disk; None for a hub data set."""
        return None if self.facts.kind == "hub" else size_of(file_place(self.spec))


def open_corpus(spec: CorpusSpec) -> Corpus:
    """Find a corpus, and read its first document to check that it is one."""
    path = file_place(spec)
    if not isinstance(path, Address) and path.is_dir():
        raise TextError(f"{spec.data} is a folder; give one file ({', '.join(SUFFIXES)}) or a hub id")
    if isinstance(path, Address) or path.exists():
        if not path.name.lower().endswith(SUFFIXES):
            raise TextError(f"{spec.data} is of an unsupported kind; give one of {', '.join(SUFFIXES)}")
        facts = file_facts(path)
    else:
        facts = hub_facts(spec)
    corpus = Corpus(spec, facts)
    if next(corpus.entries(others=()), None) is None:
        raise TextError(f"{spec.data} holds no document")
    if spec.ids and facts.kind == "file":
        _check_ids(corpus)
    return corpus


def corpus_entry(index: int, value: object, columns: Mapping[str, object], share: float | None = None) -> CorpusEntry:
    """A row of a corpus: the document that its value is, or why it is none."""
    try:
        return CorpusEntry(index, _document(value), None, share, columns)
    except TextError as error:
        return CorpusEntry(index, None, str(error), share, columns)


def _check_ids(corpus: Corpus) -> None:
    """See that no two documents of a file have the same name."""
    names = (tuple(str(entry.columns[column]) for column in corpus.spec.ids) for entry in corpus.entries(others=()))
    seen = np.frombuffer(array("q", map(hash, names)), dtype=np.int64)  # hashes take less memory than the names
    order = np.argsort(seen, kind="stable")
    if len(again := np.flatnonzero(np.diff(seen[order]) == 0)):
        place = again[order[again + 1].argmin()]
        first, second = order[place : place + 2].tolist()
        columns = next(corpus.entries(second, others=())).columns
        raise TextError(
            f"{corpus.spec.data}: rows {first + 1} and {second + 1} both have the id"
            f" {', '.join(str(columns[column]) for column in corpus.spec.ids)};"
            " give --id the columns that together name a row"
        )


def _document(value: object) -> Document:
    """Return a text or a conversation as a document; None is the empty text."""
    if value is None or isinstance(value, str):
        return Document.plain(value or "")
    if not isinstance(value, list | Mapping):
        raise TextError(
            "it is neither a text nor a conversation; a conversation is a list of {role: ..., content: ...}"
        )
    return read_conversation(value, "the document")
