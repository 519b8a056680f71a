"""A store of scores: one corpus under one model, in Parquet shards that are complete or absent.

    STORE/manifest.json        model, data, parameters, packages: what was scored, and how
    STORE/shard-00000.parquet  one row per document, its tokens as lists
    STORE/columns-00000.parquet  what else the corpus says of these documents; not there if it says nothing
    STORE/shard-00000.json     its mark: written last, so a shard with a mark is complete
    STORE/complete.json        totals: written at the end of the corpus
    STORE/gathered/            features that rules need beyond the scores: see features.py

Nothing in a store depends on the time: two undisturbed runs give the same bytes. This module does not know how scores
are computed: see scoring.py.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data.corpus.document_columns import Columns, columns_from_parquet
from data.corpus.scored_rows import ScoredRow, ScoredRows, from_parquet
from model.atomic_files import read_json
from model.errors import TextError
from model.hub.model_info import ModelInfo
from model.reading.json_text import parse_json
from model.reading.regular_files import read_bytes, read_text
from model.short_repr import ShortRepr

FORMAT = "micro_step corpus store 1"
MANIFEST, COMPLETE = "manifest.json", "complete.json"
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

    path: Path
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
    def ids(self) -> tuple[str, ...]:
        """The columns that together name a document; () if none were given."""
        return tuple(self.manifest.get("ids", ()))

    @property
    def column_names(self) -> tuple[str, ...]:
        """The columns that documents have beside their text, as the corpus orders them; () of older stores."""
        files = [self.path / columns_name(number) for number, mark in enumerate(self.marks) if mark.columns_sha256]
        return tuple(dict.fromkeys(name for file in files for name in pq.read_schema(file).names))

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

    def shards(self) -> Iterator[ScoredRows]:
        for number in range(len(self.marks)):
            yield from_parquet(self.content(number))

    def content(self, number: int) -> bytes:
        """Return the bytes of a shard, whose hash is checked.

        Raises:
            TextError: the shard is gone or damaged.
        """
        return self._checked(shard_name(number), self.marks[number].sha256)

    def _checked(self, name: str, sha256: str) -> bytes:
        file = self.path / name
        try:
            content = read_bytes(file)
        except OSError as error:
            raise TextError(f"{file} cannot be read: {error.strerror}") from None
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


def open_store(path: Path, allow_incomplete: bool = False) -> CorpusStore:
    """Open a store for reading.

    Args:
        path: its folder.
        allow_incomplete: accept the complete shards of a run that was stopped; the store's notes say so.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise TextError(f"{path} holds no store of scores; make one with `micro-step corpus score --out {path}`")
    marks: list[Mark] = []
    while (mark := read_mark(path, len(marks))) is not None:
        marks.append(mark)
    complete = (path / COMPLETE).is_file() and bool(marks) and marks[-1].last
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


def columns_name(number: int) -> str:
    return f"columns-{number:05d}.parquet"


def read_manifest(path: Path, kind: str = FORMAT) -> dict[str, Any] | None:
    manifest = read_json(path / MANIFEST)
    if manifest is None:
        return None
    if not isinstance(manifest, dict) or manifest.get("format") != kind:
        raise TextError(f"{path / MANIFEST} is not a {kind!r}; give another folder")
    return manifest


def read_mark(path: Path, number: int, check: bool = False) -> Mark | None:
    """Return the mark of a complete shard, else None; `check` also compares its hash."""
    file = path / shard_name(number)
    try:
        values = parse_json(read_text(file.with_suffix(".json")))
        mark = Mark(**{**values, "next": tuple(values["next"])})
        whole = file.stat().st_size == mark.size
        if check and whole:
            whole = hashlib.sha256(read_bytes(file)).hexdigest() == mark.sha256
        if mark.columns_sha256 and whole:
            beside = path / columns_name(number)
            whole = beside.is_file()
            if check and whole:
                whole = hashlib.sha256(read_bytes(beside)).hexdigest() == mark.columns_sha256
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return mark if whole else None
