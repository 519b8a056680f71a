"""A store of scores: one corpus under one model, in Parquet shards that exist whole or not at all.

    STORE/manifest.json        model, data, parameters, packages: what the scores are of
    STORE/shard-00000.parquet  one row a document, its tokens as lists
    STORE/shard-00000.json     its mark: written last, so that a shard with a mark is complete
    STORE/complete.json        totals: written when the corpus has ended
    STORE/gathered/            what rules need beyond the scores: see gather.py

Nothing in a store says when it was made: two undisturbed runs give the same bytes. Knows nothing about how scores are
computed: see scoring.py.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.corpus.scored_rows import ScoredRow, ScoredRows, from_parquet
from model.errors import TextError
from model.hub.model_info import ModelInfo
from model.short_repr import ShortRepr

FORMAT = "micro_step corpus store 1"
MANIFEST, COMPLETE, LOCK = "manifest.json", "complete.json", ".lock"
# Facts of the model that every shard of a store must share.
IDENTITY = ("revision", "tokenizer_hash", "chat_template_hash", "dtype", "device", "attn_implementation",
            "quantization", "adapter")  # fmt: skip


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


@dataclass(frozen=True, repr=False)
class CorpusStore(ShortRepr):
    """A store that can be read. Shards are loaded, and their hashes checked, when they are asked for."""

    path: Path
    facts: ModelInfo
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
        total = {name: sum(getattr(mark, name) for mark in self.marks) for name in COUNTS}
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


COUNTS = ("empty", "refused", "truncated", "left_out", "inexact")


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
        facts = ModelInfo.from_dict(manifest["model"])
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
