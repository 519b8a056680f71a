"""A corpus as a stream of documents: a text, JSON-lines or Parquet file, or a data set of the hub.

Documents come in a fixed order and carry their number in it, so that a reader can start again anywhere; so do the
pieces of tokens that they are scored in. Knows nothing about models or stores.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from model.cache import remembered_sha256
from model.document import Document, Message
from model.errors import TextError, TooLarge

if TYPE_CHECKING:
    from model.encoding import EncodedText

Cut = Literal["file", "paragraph", "line"]
SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
LONGEST_DOCUMENT = 20_000_000  # characters
HUB_SECONDS = 10.0  # for the one question which commit a data set is at
_PARQUET_ROWS = 256
_UNREADABLE = (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError)


@dataclass(frozen=True)
class CorpusSpec:
    """What a user names, and how documents are found in it."""

    data: str
    """A file with one of `SUFFIXES`, or a data set's hub id."""
    column: str = "text"
    """Of JSON lines, Parquet and hub: it holds a text, or a conversation (a list of role and content)."""
    documents: Cut = "file"
    """Of .txt: the whole file is one document, or each block between blank lines, or each line that is not blank."""
    subset: str | None = None
    """Configuration of a hub data set."""
    split: str = "train"
    """Split of a hub data set."""
    revision: str | None = None
    """Branch, tag or commit of a hub data set."""


@dataclass(frozen=True)
class DataFacts:
    """What decides which documents a corpus holds."""

    kind: Literal["file", "hub"]
    name: str
    """The file's name without its folder, or the hub id."""
    revision: str
    """"sha256:..." of the file, or the hub's commit."""
    subset: str | None
    split: str | None


@dataclass(frozen=True)
class Entry:
    """One document of a corpus."""

    index: int
    """Its number, from 0, in the corpus."""
    document: Document | None
    """None where it is no valid text."""
    problem: str | None
    """Why it is none."""
    share: float | None
    """How much of the corpus has been read, 0 to 1, about; None where that is unknown."""


@dataclass(frozen=True)
class Piece:
    """A document, or a window of one, as the n tokens that are scored together."""

    document: int  # its number in the corpus
    number: int  # of the window in the document
    at: int  # tokens of the document before it
    encoded: EncodedText | None  # None where the document is empty or cannot be read
    source: str  # the document's own text
    document_tokens: int
    left_out: int  # tokens of the document after it that are not scored
    problem: str | None  # why the document cannot be read
    share: float | None  # of the corpus that has been read, about

    @property
    def n(self) -> int:
        """Tokens."""
        return len(self.encoded) if self.encoded is not None else 0

    @property
    def text(self) -> tuple[str, int]:
        """The characters of the document that these tokens cover, and where they start in it."""
        if self.encoded is None or not (inside := self.encoded.source_start >= 0).any():
            return "", 0
        start = int(self.encoded.source_start[inside].min())
        return self.source[start : int(self.encoded.source_end[inside].max())], start

    def head(self, n: int) -> Piece:
        """Its first n tokens, as the last ones of the document that are scored."""
        encoded = self.encoded.head(n) if self.encoded is not None else None
        return replace(self, encoded=encoded, left_out=self.document_tokens - self.at - n)


@dataclass(frozen=True)
class Corpus:
    """Documents that can be streamed from any point on, as often as needed."""

    spec: CorpusSpec
    facts: DataFacts

    def entries(self, start: int = 0) -> Iterator[Entry]:
        """Stream the documents from number `start` on.

        Raises:
            TextError: the file or data set cannot be read, is damaged, or has no such column.
        """
        if self.facts.kind == "hub":
            values: Iterator[tuple[object, float | None]] = _hub_values(self.spec, self.facts, start)
        else:
            values = islice(_file_values(self.spec), start, None)
        for index, (value, share) in enumerate(values, start):
            try:
                yield Entry(index, _document(value), None, share)
            except TextError as error:
                yield Entry(index, None, str(error), share)

    def pieces(
        self,
        tokenizer: Any,
        known: int,
        longest: int,
        windows: bool,
        chat: bool,
        force_bos: bool,
        start: tuple[int, int],
    ) -> Iterator[Piece]:
        """Tokenise the documents, from a document and window on.

        Args:
            tokenizer: of the model.
            known: ids from this on are unknown to the model; a document that holds one cannot be read.
            longest: tokens of a piece.
            windows: cut longer documents into pieces; otherwise only their first `longest` tokens are given.
            chat: apply the chat template.
            force_bos: put BOS first even if the tokenizer does not.
            start: number of the document and of the window in it.

        Raises:
            TextError: see `entries`.
            TooLarge: a document is too long to be tokenised.
        """
        for entry in self.entries(start[0]):
            encoded, problem = _encoded(entry, tokenizer, known, chat, force_bos)
            source = entry.document.text if entry.document is not None else ""
            total = len(encoded) if encoded is not None else 0
            left_out = 0 if windows else max(0, total - longest)
            for number, at in enumerate(range(0, total, longest) if windows and total else (0,)):
                if (entry.index, number) >= start:
                    part = _part(encoded, at, at + longest) if encoded is not None else None
                    yield Piece(entry.index, number, at, part, source, total, left_out, problem, entry.share)

    def unchanged(self) -> bool:
        """Whether the file is still the one that was opened; a hub commit never changes."""
        return self.facts.kind == "hub" or _file_facts(Path(self.spec.data)) == self.facts

    @property
    def file_size(self) -> int | None:
        """Bytes on disk; None for a hub data set."""
        return None if self.facts.kind == "hub" else Path(self.spec.data).expanduser().stat().st_size


def open_corpus(spec: CorpusSpec) -> Corpus:
    """Find a corpus, and read its first document to see that it is one.

    Raises:
        TextError: there is no such file or data set, its kind is unknown, or it holds no document.
    """
    path = Path(spec.data).expanduser()
    if path.is_dir():
        raise TextError(f"{spec.data} is a folder; give one file ({', '.join(SUFFIXES)}) or a hub id")
    if path.exists():
        if not path.name.lower().endswith(SUFFIXES):
            raise TextError(f"{spec.data} is of no kind that is read; give one of {', '.join(SUFFIXES)}")
        facts = _file_facts(path)
    else:
        facts = _hub_facts(spec)
    corpus = Corpus(spec, facts)
    if next(corpus.entries(), None) is None:
        raise TextError(f"{spec.data} holds no document")
    return corpus


def _document(value: object) -> Document:
    """A text or a conversation as a document; nothing at all is the empty text."""
    if value is None or isinstance(value, str):
        return Document.plain(value or "")
    turns: Any = value
    try:
        return Document(tuple(Message(turn["role"], turn["content"]) for turn in turns))
    except (TypeError, KeyError, AttributeError):
        raise TextError(
            "it is neither a text nor a conversation; a conversation is a list of {role: ..., content: ...}"
        ) from None


def _encoded(
    entry: Entry, tokenizer: Any, known: int, chat: bool, force_bos: bool
) -> tuple[EncodedText | None, str | None]:
    """The tokens of a document, or why there are none."""
    from model.encoding import encode  # it brings transformers

    document = entry.document
    if document is None or not any(message.content for message in document.messages):
        return None, entry.problem
    if len(document.text) > LONGEST_DOCUMENT:
        raise TooLarge(
            f"document {entry.index} has {len(document.text):,} characters, at most {LONGEST_DOCUMENT:,} are read;"
            " cut the corpus into documents (--documents paragraph for a .txt)"
        )
    try:
        encoded = encode(document, tokenizer, chat, force_bos)
    except TextError as error:
        return None, str(error)
    if int(encoded.ids.max(initial=0)) >= known:
        return None, "it holds a special token that this model does not know"
    return encoded, None


def _part(encoded: EncodedText, a: int, b: int) -> EncodedText:
    names = ("ids", "start", "end", "continuation", "role", "source_start", "source_end")
    return replace(encoded, **{name: getattr(encoded, name)[a:b] for name in names})


# --- files


def _file_facts(path: Path) -> DataFacts:
    path = path.expanduser()
    try:
        return DataFacts("file", path.name, f"sha256:{remembered_sha256(path)}", None, None)
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None


def _file_values(spec: CorpusSpec) -> Iterator[tuple[object, float | None]]:
    """The texts of a file, with the share of it that has been read."""
    path = Path(spec.data).expanduser()
    kind = path.name.lower().removesuffix(".gz")
    try:
        if kind.endswith(".parquet"):
            yield from _parquet_values(path, spec)
            return
        size = max(1, path.stat().st_size)
        with path.open("rb") as raw:
            plain = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
            with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as lines:
                found = _json_values(lines, spec) if kind.endswith(".jsonl") else _text_values(lines, spec.documents)
                for value in found:
                    yield value, min(1.0, raw.tell() / size)
    except _UNREADABLE as error:
        raise TextError(f"{spec.data} is damaged or not UTF-8 ({error}); save or fetch it again") from None
    except OSError as error:
        raise TextError(f"{spec.data} cannot be read: {error.strerror or error}") from None


def _text_values(lines: io.TextIOWrapper[Any], cut: Cut) -> Iterator[str]:
    if cut == "file":
        yield lines.read()
    elif cut == "line":
        for line in lines:
            if line.strip():
                yield line.rstrip("\r\n")
    else:
        block: list[str] = []
        for line in lines:
            if line.strip():
                block.append(line)
            elif block:
                yield "".join(block).rstrip("\r\n")
                block = []
        if block:
            yield "".join(block).rstrip("\r\n")


def _json_values(lines: io.TextIOWrapper[Any], spec: CorpusSpec) -> Iterator[object]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextError(f"{spec.data}, line {number} is not JSON ({error}); one object a line is read") from None
        if not isinstance(record, dict):
            raise TextError(f"{spec.data}, line {number} is no JSON object; one object a line is read")
        yield _value(record, spec)


def _parquet_values(path: Path, spec: CorpusSpec) -> Iterator[tuple[object, float | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if spec.column not in names:
                raise _no_column(spec, names)
            done, total = 0, file.metadata.num_rows
            for batch in file.iter_batches(_PARQUET_ROWS, columns=[spec.column]):
                for value in batch.column(0).to_pylist():
                    done += 1
                    yield value, done / total
    except pa.ArrowException as error:
        raise TextError(f"{spec.data} is no Parquet file that can be read ({error}); fetch it again") from None


def _value(record: Mapping[str, object], spec: CorpusSpec) -> object:
    if spec.column not in record:
        raise _no_column(spec, list(record))
    return record[spec.column]


def _no_column(spec: CorpusSpec, names: list[str]) -> TextError:
    return TextError(
        f"{spec.data} has no column {spec.column!r}; choose one with --column: {', '.join(names) or 'there are none'}"
    )


# --- the hub


def _hub_facts(spec: CorpusSpec) -> DataFacts:
    """Ask the hub which commit the data set is at, so that every later reading is of the same one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    nothing = f"there is no file {spec.data!r}"
    if spec.data.lower().endswith(SUFFIXES) or spec.data.startswith((".", "/", "~")):
        raise TextError(f"{nothing}; check its path")
    try:
        commit = HfApi().dataset_info(spec.data, revision=spec.revision, timeout=HUB_SECONDS).sha
    except HFValidationError:
        raise TextError(f"{nothing}, and it is no hub id; give a file ({', '.join(SUFFIXES)}) or a hub id") from None
    except HfHubHTTPError as error:
        raise TextError(f"{nothing}, and the hub gives no such data set ({_reason(error)}); check its name") from None
    except Exception as error:
        raise TextError(f"{nothing}, and the hub cannot be reached ({_reason(error)}); give a file") from error
    return DataFacts("hub", spec.data, str(commit), spec.subset, spec.split)


def _hub_values(spec: CorpusSpec, facts: DataFacts, start: int) -> Iterator[tuple[object, float | None]]:
    import datasets  # heavy, and not needed for local files

    try:
        stream = datasets.load_dataset(
            spec.data, spec.subset, split=spec.split, revision=facts.revision, streaming=True
        )
        for record in stream.skip(start) if start else stream:
            yield _value(record, spec), None
    except TextError:
        raise
    except Exception as error:
        raise TextError(
            f"the hub's {spec.data} cannot be read ({_reason(error)}); check --subset, --split and the network"
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
