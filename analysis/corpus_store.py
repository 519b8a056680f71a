"""A store of scores: one corpus under one model, in Parquet shards that exist whole or not at all.

    STORE/manifest.json        model, data, parameters, packages: what the scores are of
    STORE/shard-00000.parquet  one row a document, its tokens as lists
    STORE/shard-00000.json     its mark: written last, so that a shard with a mark is complete
    STORE/complete.json        totals: written when the corpus has ended

One row a document, since a document is what segments, intervals and batches are of: its offsets come with the lists,
where a row a token needs them rebuilt and loses empty documents. Measured on a million tokens it is no larger (16.8
bytes a token with split float bytes, delta-coded positions and zstd; 25 plain) and reads in .08 s.

Nothing in a store says when it was made: two undisturbed runs give the same bytes. Knows nothing about how scores are
computed: see corpus_cli.py.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from model.document import ROLES, TEMPLATE
from model.errors import ExportError, TextError
from model.facts import ModelFacts

FORMAT = "micro_step corpus store 1"
ROLE_NAMES = (*ROLES, TEMPLATE)  # `role` holds places in this tuple
MANIFEST, COMPLETE, LOCK = "manifest.json", "complete.json", ".lock"
# Facts of the model that every shard of a store must share.
IDENTITY = ("revision", "tokenizer_hash", "chat_template_hash", "dtype", "device", "attn_implementation",
            "quantization", "adapter")  # fmt: skip
_FLOATS, _POSITIONS = ("entropy", "confidence", "margin", "surprisal"), ("start", "end")
_TOKEN = {"ids": "i4", **dict.fromkeys(_FLOATS, "f4"), "rank": "i4", "start": "i4", "end": "i4", "role": "u1"}
_ROW = {"document": "i4", "piece": "i4", "document_tokens": "i4", "text_start": "i4"}


@dataclass(frozen=True)
class ScoredRow:
    """N scored tokens of one document, or of one window of it. A missing score is NaN, its rank 0."""

    document: int  # number of the document in the corpus
    piece: int  # number of the window in the document; 0 where documents are not cut into windows
    document_tokens: int  # tokens of the whole document; more than N where it was cut
    text_start: int  # character of the document at which `text` starts
    text: str  # the characters that these tokens cover
    ids: NDArray[np.int32]  # [N]
    entropy: NDArray[np.float32]  # [N] nats
    confidence: NDArray[np.float32]  # [N]
    margin: NDArray[np.float32]  # [N]
    surprisal: NDArray[np.float32]  # [N] nats
    rank: NDArray[np.int32]  # [N]
    start: NDArray[np.int32]  # [N] characters [start, end) of the document's own text; -1 in the chat template
    end: NDArray[np.int32]  # [N]
    role: NDArray[np.uint8]  # [N] places in ROLE_NAMES

    @property
    def display(self) -> list[str]:
        """[N] the characters of each token; empty in the chat template."""
        spans = zip((self.start - self.text_start).tolist(), (self.end - self.text_start).tolist(), strict=True)
        return [self.text[a:b] if b > 0 else "" for a, b in spans]


@dataclass(frozen=True)
class ScoredRows:
    """R rows with N tokens in all, end to end; the tokens of row i are [offsets[i], offsets[i + 1])."""

    document: NDArray[np.int32]  # [R]
    piece: NDArray[np.int32]  # [R]
    document_tokens: NDArray[np.int32]  # [R]
    text_start: NDArray[np.int32]  # [R]
    text: tuple[str, ...]  # [R]
    offsets: NDArray[np.int64]  # [R + 1]
    ids: NDArray[np.int32]  # [N]
    entropy: NDArray[np.float32]  # [N] nats
    confidence: NDArray[np.float32]  # [N]
    margin: NDArray[np.float32]  # [N]
    surprisal: NDArray[np.float32]  # [N] nats
    rank: NDArray[np.int32]  # [N]
    start: NDArray[np.int32]  # [N]
    end: NDArray[np.int32]  # [N]
    role: NDArray[np.uint8]  # [N]

    def __post_init__(self) -> None:
        rows, tokens = len(self.offsets) - 1, int(self.offsets[-1])
        for names, n in ((_TOKEN, tokens), ((*_ROW, "text"), rows)):
            for name in names:
                if len(getattr(self, name)) != n:
                    raise ValueError(f"{name} must be [{n}], got [{len(getattr(self, name))}]")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, i: int) -> ScoredRow:
        """Row i; its arrays share memory with these."""
        piece = slice(int(self.offsets[i]), int(self.offsets[i + 1]))
        head: dict[str, Any] = {name: int(getattr(self, name)[i]) for name in _ROW}
        return ScoredRow(**head, text=self.text[i], **{name: getattr(self, name)[piece] for name in _TOKEN})

    @classmethod
    def join(cls, parts: list[ScoredRows]) -> ScoredRows:
        """The rows of all parts, in order."""
        names, lengths = (*_ROW, *_TOKEN), [np.diff(part.offsets) for part in parts]
        return cls(
            text=tuple(text for part in parts for text in part.text),
            offsets=np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64),
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names},
        )


@dataclass(frozen=True)
class Mark:
    """What is known of one complete shard."""

    rows: int
    tokens: int
    next: tuple[int, int]  # document and window that the next shard starts with
    last: bool  # the corpus, or what was asked of it, ends here
    documents: int  # that start in this shard
    empty: int  # documents without a token
    refused: int  # documents that could not be read, kept as empty ones
    refusal: str | None  # why the first of them could not
    truncated: int  # documents of which only the first tokens were scored
    left_out: int  # tokens of those that were not
    inexact: int  # documents whose token positions are the tokenizer's own, which trim white space
    size: int = 0  # bytes of the shard
    sha256: str = ""  # of the shard


@dataclass(frozen=True)
class CorpusStore:
    """A store that can be read. Shards are loaded, and their hashes checked, when they are asked for."""

    path: Path
    facts: ModelFacts
    manifest: Mapping[str, Any]
    """data, parameters, roles, packages and notes as they were at the start."""
    marks: tuple[Mark, ...]
    complete: bool

    @property
    def tokens(self) -> int:
        """Scored tokens."""
        return sum(mark.tokens for mark in self.marks)

    @property
    def documents(self) -> int:
        """Documents, empty ones included."""
        return sum(mark.documents for mark in self.marks)

    @property
    def notes(self) -> tuple[str, ...]:
        """What must be said wherever these scores are shown."""
        total = {name: sum(getattr(mark, name) for mark in self.marks) for name in _COUNTS}
        notes = [str(note) for note in self.manifest["notes"]]
        if not self.complete:
            notes.insert(0, f"incomplete: the first {self.documents:,} documents of a corpus that is not finished")
        if total["truncated"]:
            notes.append(f"documents whose ends are left out: {total['truncated']:,}, by {total['left_out']:,} tokens")
        if total["refused"]:
            reason = next(mark.refusal for mark in self.marks if mark.refusal)
            notes.append(f"documents that were refused and count as empty: {total['refused']:,} (the first: {reason})")
        if total["inexact"]:
            notes.append(f"documents whose token positions are the tokenizer's own: {total['inexact']:,}")
        return tuple(notes)

    def shards(self) -> Iterator[ScoredRows]:
        """One shard after another.

        Raises:
            TextError: a shard is not what its mark says.
        """
        for number, mark in enumerate(self.marks):
            content = (self.path / shard_name(number)).read_bytes()
            if hashlib.sha256(content).hexdigest() != mark.sha256:
                raise TextError(
                    f"{self.path / shard_name(number)} is damaged; start the corpus command again to make it anew"
                )
            yield from_parquet(content)

    def rows(self) -> Iterator[ScoredRow]:
        """One row after another, in the order of the corpus."""
        for shard in self.shards():
            yield from (shard.row(i) for i in range(len(shard)))

    def arrays(self) -> ScoredRows:
        """Every row at once: 33 bytes a token, and the texts."""
        return ScoredRows.join(list(self.shards()))


_COUNTS = ("empty", "refused", "truncated", "left_out", "inexact")


def open_store(path: Path, allow_incomplete: bool = False) -> CorpusStore:
    """Open a store to read it.

    Args:
        path: its folder.
        allow_incomplete: take the complete shards of a store whose run was stopped; its notes say so.

    Raises:
        TextError: the folder holds no store, one of another version, or one that is incomplete.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise TextError(f"{path} holds no store of scores; make one with `python -m analysis corpus --out {path}`")
    marks: list[Mark] = []
    while (mark := read_mark(path, len(marks))) is not None:
        marks.append(mark)
    complete = (path / COMPLETE).is_file() and bool(marks) and marks[-1].last
    if not complete and not allow_incomplete:
        raise TextError(
            f"{path} is incomplete ({len(marks)} shards, {sum(mark.tokens for mark in marks):,} tokens);"
            " start its corpus command again to finish it"
        )
    if not marks:
        raise TextError(f"{path} holds no complete shard yet; start its corpus command again")
    try:
        facts = ModelFacts(**{**manifest["model"], "approximations": tuple(manifest["model"]["approximations"])})
    except (KeyError, TypeError):
        raise TextError(f"{path / MANIFEST} was written by another version; score the corpus again") from None
    return CorpusStore(path, facts, manifest, tuple(marks), complete)


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"shard-{number:05d}.parquet"


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest of a store; None where there is none.

    Raises:
        TextError: it is of another version.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise TextError(f"{path / MANIFEST} is not a {FORMAT!r}; score the corpus again into another folder")
    return manifest


def read_mark(path: Path, number: int, check: bool = False) -> Mark | None:
    """The mark of a shard that is there in full, else None; `check` also compares its hash."""
    file = path / shard_name(number)
    try:
        values = json.loads(file.with_suffix(".json").read_text("utf-8"))
        mark = Mark(**{**values, "next": tuple(values["next"])})
        whole = file.stat().st_size == mark.size
        if check and whole:
            whole = hashlib.sha256(file.read_bytes()).hexdigest() == mark.sha256
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return mark if whole else None


# --- writing


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the one writer of a store; the folder is made if it is not there, and what a killed writer left is removed.

    Raises:
        ExportError: the folder cannot be used, or another process writes in it.
    """
    try:
        if path.exists() and not path.is_dir():
            raise ExportError(f"{path} cannot be a store: it is a file; give --out a folder")
        path.mkdir(exist_ok=True)
        strangers = [file.name for file in path.iterdir() if file.name != LOCK and file.suffix != ".part"]
        if strangers and MANIFEST not in strangers:
            raise ExportError(f"{path} is no store and holds other files ({strangers[0]}); give --out a new folder")
        lock = filelock.FileLock(path / LOCK)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ExportError(f"another process writes into {path}; wait for it, or give another --out") from None
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}; its parent folder must be there") from None
    try:
        for leftover in path.glob("*.part"):
            leftover.unlink()
        yield
    finally:
        if not (path / MANIFEST).exists():  # nothing was begun: the folder goes as it came
            (path / LOCK).unlink()
            path.rmdir()
        lock.release()


def begin(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a new store, or see that a begun one is of the same model, data and options.

    Raises:
        ExportError: it is not; the message names what differs.
    """
    there = read_manifest(path)
    if there is None:
        _put(path / MANIFEST, _json(manifest))
        return
    pairs = [
        *((name, there["model"].get(name), manifest["model"].get(name)) for name in IDENTITY),
        *((f"data {name}", there["data"].get(name), value) for name, value in manifest["data"].items()),
        *((name, there["parameters"].get(name), value) for name, value in manifest["parameters"].items()),
    ]
    different = [f"{name} ({_short(old)} there, {_short(new)} now)" for name, old, new in pairs if old != new]
    if different:
        raise ExportError(
            f"{path} was begun with something else: {', '.join(different)};"
            " use the same model, data and options as then, or give --out another folder"
        )


def write_shard(path: Path, number: int, rows: ScoredRows, mark: Mark) -> Mark:
    """Put a shard in its place, then its mark; returns the mark with the shard's size and hash.

    Raises:
        ExportError: it cannot be written; the store stays as it was.
    """
    content = to_parquet(rows)
    mark = dataclasses.replace(mark, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    file = path / shard_name(number)
    _put(file, content)
    _put(file.with_suffix(".json"), _json(dataclasses.asdict(mark)))
    return mark


def finish(path: Path, marks: list[Mark]) -> None:
    """Note that the store is complete."""
    totals = {name: sum(getattr(mark, name) for mark in marks) for name in ("documents", "rows", "tokens", *_COUNTS)}
    _put(path / COMPLETE, _json({"shards": len(marks), **totals}))


def to_parquet(rows: ScoredRows) -> bytes:
    """Rows as one Parquet file."""
    offsets = pa.array(rows.offsets.astype(np.int32))
    table = {name: pa.array(getattr(rows, name)) for name in _ROW} | {"text": pa.array(rows.text, pa.string())}
    table |= {name: pa.ListArray.from_arrays(offsets, pa.array(getattr(rows, name))) for name in _TOKEN}
    element = "{}.list.element".format
    coding = {element(name): "BYTE_STREAM_SPLIT" for name in _FLOATS}
    coding |= {element(name): "DELTA_BINARY_PACKED" for name in _POSITIONS}
    repeated = [element(name) for name in ("ids", "rank", "role")]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(table), buffer, compression="zstd", use_dictionary=repeated, column_encoding=coding)
    return bytes(buffer.getvalue().to_pybytes())


def from_parquet(content: bytes) -> ScoredRows:
    """The rows that `to_parquet` packed."""
    (table,) = pq.read_table(pa.BufferReader(content)).combine_chunks().to_batches()
    return ScoredRows(
        text=tuple(table.column("text").to_pylist()),
        offsets=table.column("ids").offsets.to_numpy().astype(np.int64),
        **{name: table.column(name).to_numpy().astype(kind) for name, kind in _ROW.items()},
        **{name: table.column(name).flatten().to_numpy().astype(kind) for name, kind in _TOKEN.items()},
    )


def _short(value: object) -> str:
    """A hash is told by its first digits."""
    return str(value) if len(str(value)) < 40 else f"{str(value)[:19]}..."


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def _put(path: Path, content: bytes) -> None:
    """Write a file beside its place, push it to the disk, and move it there: it is there whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        if os.name == "posix":  # Windows cannot open a directory, and needs no flush of one
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        raise ExportError(
            f"{path} cannot be written ({error.strerror}); the complete shards stay: start again to go on"
        ) from error
