"""A store of scores: one corpus under one model, in Parquet shards that are complete or absent.

    STORE/manifest.json        model, data, parameters, packages: what was scored, and how
    STORE/shard-00000.parquet  one row per document, its tokens as lists
    STORE/columns-00000.parquet  what else the corpus says of these documents; not there if it says nothing
    STORE/shard-00000.json     its mark: written last, so a shard with a mark is complete
    STORE/complete.json        totals: written at the end of the corpus
    STORE/gathered/            features that rules need beyond the scores: see features.py

STORE is a folder, or an address of object storage (model/storage). Nothing in a store depends on the time: two
undisturbed runs give the same bytes. This module does not know how scores are computed: see scoring.py.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.corpus.document_columns import Columns, columns_from_parquet
from data.corpus.scored_rows import ScoredRow, ScoredRows, from_parquet
from model.errors import TextError
from model.hub.model_info import ModelInfo
from model.reading.json_text import parse_json
from model.short_repr import ShortRepr
from model.storage.places import Place, read, read_json, read_several, sizes_in
from model.text.encoding import prefix_ids

FORMAT = "micro_step corpus store 1"
MANIFEST, COMPLETE = "manifest.json", "complete.json"
ENGINE = "engine"  # in the manifest: what computed the scores, unless it was this project in its own process
# Facts about the model that all shards of a store must share.
IDENTITY = ("revision", "tokenizer_hash", "chat_template_hash", "dtype", "device", "attn_implementation",
            "quantization", "adapter")  # fmt: skip


@dataclass(frozen=True)
class Mark:
    rows: int
    tokens: int
    next: tuple[int, int]  # document and window at which the next shard starts
    last: bool  # True if the corpus, or the requested part of it, ends here
    documents: int  # number of documents that start in this shard
    empty: int  # documents without a token
    refused: int  # documents that could not be read, kept as empty ones
    refusal: str | None  # why the first of them could not be read
    truncated: int  # documents of which only the first tokens were scored
    left_out: int  # tokens of those documents that were not scored
    inexact: int  # documents whose token positions are the tokenizer's own, which trim white space
    size: int = 0  # size of the shard in bytes
    sha256: str = ""  # hash of the shard
    columns_sha256: str = ""  # hash of the columns of its documents; "" if there are none


@dataclass(frozen=True, repr=False)
class CorpusStore(ShortRepr):
    """A readable store. Shards are loaded, and their hashes checked, on demand."""

    path: Place
    facts: ModelInfo
    manifest: Mapping[str, Any]  # the manifest from the start of the run: data, parameters, roles, packages and notes
    marks: tuple[Mark, ...]
    complete: bool

    @property
    def tokens(self) -> int:
        return sum(mark.tokens for mark in self.marks)

    @property
    def documents(self) -> int:
        return sum(mark.documents for mark in self.marks)

    @property
    def notes(self) -> tuple[str, ...]:
        total = {name: sum(getattr(mark, name) for mark in self.marks) for name in COUNTS}
        notes = [str(note) for note in self.manifest["notes"]]
        if ENGINE in self.manifest:
            notes.insert(0, f"scored by {self.manifest[ENGINE]}")
        if not self.complete:
            notes.insert(0, f"incomplete: only the first {self.documents:,} documents of the corpus were scored")
        if total["truncated"]:
            notes.append(f"documents whose ends are left out: {total['truncated']:,}, by {total['left_out']:,} tokens")
        if total["refused"]:
            reason = next(mark.refusal for mark in self.marks if mark.refusal)
            notes.append(f"documents that were refused and count as empty: {total['refused']:,} (the first: {reason})")
        if total["inexact"]:
            notes.append(f"documents whose token positions are the tokenizer's own: {total['inexact']:,}")
        return tuple(notes)

    @property
    def prefix(self) -> tuple[int, ...]:
        """The ids that the model read before each row, such as BOS; they are not in the rows."""
        return tuple(self.manifest.get("prefix", ()))

    def prefix_under(self, tokenizer: Any) -> tuple[int, ...]:
        """The same as a tokenizer gives them, also for a store that is older than their entry in its manifest."""
        return prefix_ids(tokenizer, self.manifest["parameters"]["force_bos"])

    @property
    def ids(self) -> tuple[str, ...]:
        """The columns that together name a document; () if none were given."""
        return tuple(self.manifest.get("ids", ()))

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns that documents have beside their text, as the corpus orders them; () of older stores."""
        files = [self.path / columns_name(number) for number, mark in enumerate(self.marks) if mark.columns_sha256]
        schemas = (pq.read_schema(pa.BufferReader(read(file))) for file in files)
        return tuple(dict.fromkeys(name for schema in schemas for name in schema.names))

    def columns(self, names: Sequence[str] | None = None, most: int | None = None) -> Columns:
        """The columns of the documents: [documents] values each, in the order of the corpus; None where one is missing.

        A document's values are at its index, `ScoredRows.document`. No token is read.

        Args:
            names: of `column_names`; None: all.
            most: read no further shard once there are so many documents; None: read all.

        Raises:
            TextError: there is no such column, or its file is damaged.
        """
        known = dict.fromkeys(self.column_names)
        if unknown := [name for name in names or () if name not in known]:
            raise TextError(f"{self.path} has no column {unknown[0]!r}; its columns: {', '.join(known) or 'none'}")
        found: Columns = {name: [] for name in (known if names is None else names)}
        done = 0
        for number, mark in enumerate(self.marks):
            part = self.columns_of(number, list(found))
            for name, values in found.items():
                values += part.get(name) or [None] * mark.documents
            done += mark.documents
            if most is not None and done >= most:
                break
        return found

    def columns_of(self, number: int, names: Sequence[str] | None = None) -> Columns:
        """The columns of the documents that start in a shard, of these names (None: all), as far as it has them."""
        sha256 = self.marks[number].columns_sha256
        return columns_from_parquet(self._checked(columns_name(number), sha256), names) if sha256 else {}

    def shards(self, numbers: Iterable[int] | None = None) -> Iterator[ScoredRows]:
        """The rows of shards, one shard at a time; None: of all. Errors as `content`."""
        chosen = list(range(len(self.marks)) if numbers is None else numbers)
        contents = read_several(self.path, {shard_name(number): self.marks[number].size for number in chosen})
        for number in chosen:
            yield from_parquet(self._checked(shard_name(number), self.marks[number].sha256, contents))

    def content(self, number: int) -> bytes:
        """Return the bytes of a shard, whose hash is checked.

        Raises:
            TextError: the shard is gone or damaged.
        """
        return self._checked(shard_name(number), self.marks[number].sha256)

    def _checked(self, name: str, sha256: str, contents: Iterator[bytes] | None = None) -> bytes:
        file = self.path / name
        try:
            content = read(file) if contents is None else next(contents)
        except OSError as error:
            raise TextError(f"{file} cannot be read: {error.strerror or 'it is gone'}") from None
        if hashlib.sha256(content).hexdigest() != sha256:
            raise TextError(f"{file} is damaged; run the corpus command again to rebuild it")
        return content

    def rows(self) -> Iterator[ScoredRow]:
        for shard in self.shards():
            yield from (shard.row(i) for i in range(len(shard)))

    def arrays(self) -> ScoredRows:
        """Return all rows at once: 33 bytes per token, plus the texts."""
        return ScoredRows.join(list(self.shards()))


COUNTS = ("empty", "refused", "truncated", "left_out", "inexact")


def open_store(path: Place, allow_incomplete: bool = False) -> CorpusStore:
    """Open a store for reading.

    Args:
        path: its folder or address.
        allow_incomplete: accept the complete shards of a run that was stopped; the store's notes say so.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise TextError(f"{path} holds no store of scores; make one with `micro-step corpus score --out {path}`")
    sizes = sizes_in(path)
    marks = read_marks(path, sizes)
    complete = COMPLETE in sizes and bool(marks) and marks[-1].last
    if not complete and not allow_incomplete:
        raise TextError(
            f"{path} is incomplete ({len(marks)} shards, {sum(mark.tokens for mark in marks):,} tokens);"
            " run its corpus command again to finish it"
        )
    if not marks:
        raise TextError(f"{path} holds no complete shard yet; run its corpus command again")
    try:
        facts = ModelInfo.from_dict(manifest["model"])
    except (KeyError, TypeError):
        raise TextError(f"{path / MANIFEST} was written by another version; score the corpus again") from None
    return CorpusStore(path, facts, manifest, tuple(marks), complete)


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.parquet"


def mark_name(number: int) -> str:
    return f"shard-{number:05d}.json"


def columns_name(number: int) -> str:
    return f"columns-{number:05d}.parquet"


def read_manifest(path: Place, kind: str = FORMAT) -> dict[str, Any] | None:
    manifest = read_json(path / MANIFEST)
    if manifest is None:
        return None
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        raise TextError(f"{path / MANIFEST} is not a {kind!r}; give another folder")
    return manifest


def read_mark(path: Place, number: int) -> Mark | None:
    """Return the mark of a complete shard whose content is the marked one, else None.

    Raises:
        TextError: object storage does not answer.
    """
    try:
        mark = _mark_of(read(path / mark_name(number)))
        if mark is None:
            return None
        hashes = {shard_name(number): mark.sha256, columns_name(number): mark.columns_sha256}
        whole = all(
            hashlib.sha256(read(path / name)).hexdigest() == sha256 for name, sha256 in hashes.items() if sha256
        )
        return mark if whole else None
    except OSError:
        return None


def read_marks(path: Place, sizes: Mapping[str, int] | None = None) -> list[Mark]:
    """The marks of the shards that are complete, up to the first that is not. No hash is compared.

    Args:
        path: of the store.
        sizes: of its files, if they are known.

    Raises:
        TextError: object storage does not answer.
    """
    sizes = sizes_in(path) if sizes is None else sizes
    names = list(takewhile(sizes.__contains__, map(mark_name, count())))
    marks: list[Mark] = []
    try:
        for content in read_several(path, {name: sizes[name] for name in names}):
            mark = _mark_of(content)
            if mark is None or not _whole(mark, len(marks), sizes):
                break
            marks.append(mark)
    except OSError:  # the next one cannot be read, or has gone meanwhile
        return marks
    return marks


def _mark_of(content: bytes) -> Mark | None:
    try:
        values = parse_json(content)
        return Mark(**{**values, "next": tuple(values["next"])})
    except (ValueError, TypeError, KeyError):
        return None


def _whole(mark: Mark, number: int, sizes: Mapping[str, int]) -> bool:
    beside = not mark.columns_sha256 or columns_name(number) in sizes
    return sizes.get(shard_name(number)) == mark.size and beside
