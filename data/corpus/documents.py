"""A corpus as a stream of documents: a text file, a table (CSV, TSV, JSON, Parquet), or a data set of the hub.

Documents come in a fixed order and carry their index in it, so a reader can resume anywhere. This module knows nothing
about tokens, models or stores.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from data.corpus.text_files import (
    SUFFIXES,
    CorpusSpec,
    Cut,
    DataFacts,
    Value,
    file_facts,
    file_values,
    hub_facts,
    hub_values,
)
from model.errors import TextError
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

    def entries(self, start: int = 0) -> Iterator[CorpusEntry]:
        """Stream the documents from index `start` on.

        Raises:
            TextError: the file or data set cannot be read, is damaged, or has no such column.
        """
        if self.facts.kind == "hub":
            values: Iterator[Value] = hub_values(self.spec, self.facts, start)
        else:
            values = islice(file_values(self.spec), start, None)
        for index, (value, columns, share) in enumerate(values, start):
            yield corpus_entry(index, value, columns, share)

    def unchanged(self) -> bool:
        """True if the file has not changed since it was opened; a hub commit never changes."""
        return self.facts.kind == "hub" or file_facts(Path(self.spec.data)) == self.facts

    @property
    def file_size(self) -> int | None:
        """Bytes on disk; None for a hub data set."""
        return None if self.facts.kind == "hub" else Path(self.spec.data).expanduser().stat().st_size


def open_corpus(spec: CorpusSpec) -> Corpus:
    """Find a corpus, and read its first document to check that it is one."""
    path = Path(spec.data).expanduser()
    if path.is_dir():
        raise TextError(f"{spec.data} is a folder; give one file ({', '.join(SUFFIXES)}) or a hub id")
    if path.exists():
        if not path.name.lower().endswith(SUFFIXES):
            raise TextError(f"{spec.data} is of an unsupported kind; give one of {', '.join(SUFFIXES)}")
        facts = file_facts(path)
    else:
        facts = hub_facts(spec)
    corpus = Corpus(spec, facts)
    if next(corpus.entries(), None) is None:
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
    seen: dict[int, int] = {}  # hashes, which take less memory than the names
    for entry in corpus.entries():
        name = tuple(str(entry.columns[column]) for column in corpus.spec.ids)
        other = seen.setdefault(hash(name), entry.index)
        if other != entry.index:
            raise TextError(
                f"{corpus.spec.data}: rows {other + 1} and {entry.index + 1} both have the id {', '.join(name)};"
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
