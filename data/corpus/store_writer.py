"""Writing a store of scores: one writer at a time. See store.py."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from data.corpus.document_columns import columns_to_parquet
from data.corpus.scored_rows import ScoredRows, to_parquet
from data.corpus.store import (
    COMPLETE,
    COUNTS,
    ENGINE,
    IDENTITY,
    MANIFEST,
    Mark,
    columns_name,
    mark_name,
    read_manifest,
    shard_name,
)
from model.atomic_files import as_json
from model.errors import ExportError
from model.one_writer import LOCK, one_writer
from model.storage.claims import CLAIM, claimed
from model.storage.places import Address, Place, folders_in, sizes_in, write

SHARDS_STAY = "the complete shards are kept: run the same command again to resume"


@contextmanager
def writing(path: Place) -> Iterator[Callable[[], None]]:
    """Be the one writer of a store; the folder is made if it is not there, and what a killed writer left is removed.

    Yields:
        A check that this is still the one writer, to be called before each shard: object storage has no locks, and a
        writer that was cut off from it for too long may have been replaced (claims.py). It raises ExportError.
    """
    try:
        if not isinstance(path, Address) and path.exists() and not path.is_dir():
            raise ExportError(f"{path} cannot be a store: it is a file; give --out a folder")
        there = [*sizes_in(path), *folders_in(path)]
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from None
    strangers = [name for name in there if name != LOCK and not name.startswith(CLAIM) and not name.endswith(".part")]
    if strangers and MANIFEST not in strangers:
        raise ExportError(f"{path} is not a store and holds other files ({strangers[0]}); give --out a new folder")
    if isinstance(path, Address):
        with claimed(path) as check:
            yield check
        return
    with one_writer(path):
        for leftover in path.glob("*.part"):
            leftover.unlink()
        yield lambda: None


def begin(path: Place, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a new store, or see that a begun one is of the same model, data and options."""
    write_or_compare(path, manifest, read_manifest(path), ("data", "parameters"))


def write_or_compare(
    path: Place, manifest: Mapping[str, Any], begun: Mapping[str, Any] | None, groups: Sequence[str]
) -> None:
    """Write the manifest of a new folder; of a begun one, see that its model and these groups of settings are equal."""
    if begun is None:
        write(path / MANIFEST, as_json(manifest))
        return
    pairs = [(ENGINE, *(each.get(ENGINE, "micro_step") for each in (begun, manifest)))]
    pairs += [(name, begun["model"].get(name), manifest["model"].get(name)) for name in IDENTITY]
    for group in groups:
        title = "" if group == groups[-1] else f"{group} "
        pairs += [(title + name, begun[group].get(name), value) for name, value in manifest[group].items()]
    what = ", ".join(("model", *groups[:-1]))
    refuse_other(path, pairs, f"use the same {what} and {groups[-1]} as then, or give --out another folder")


def refuse_other(path: Place, pairs: Iterable[tuple[str, object, object]], remedy: str) -> None:
    """See that a begun folder is of the same: what it is of there, and now, by name."""
    different = [f"{name} ({_short(old)} there, {_short(new)} now)" for name, old, new in pairs if old != new]
    if different:
        raise ExportError(f"{path} was begun with something else: {', '.join(different)}; {remedy}")


def write_shard(
    path: Place, number: int, rows: ScoredRows, mark: Mark, columns: Sequence[Mapping[str, object]] = ()
) -> Mark:
    """Put a shard and the columns of its documents in their places, then its mark.

    Returns:
        The mark, with the size and the hashes.
    """
    content, beside = to_parquet(rows), columns_to_parquet(columns)
    mark = dataclasses.replace(mark, size=len(content), sha256=hashlib.sha256(content).hexdigest())
    if beside is not None:
        mark = dataclasses.replace(mark, columns_sha256=hashlib.sha256(beside).hexdigest())
        write(path / columns_name(number), beside, SHARDS_STAY)
    write(path / shard_name(number), content, SHARDS_STAY)
    write(path / mark_name(number), as_json(dataclasses.asdict(mark)), SHARDS_STAY)
    return mark


def finish(path: Place, marks: list[Mark]) -> None:
    """Note that the store is complete."""
    totals = {name: sum(getattr(mark, name) for mark in marks) for name in ("documents", "rows", "tokens", *COUNTS)}
    write(path / COMPLETE, as_json({"shards": len(marks), **totals}))


def _short(value: object) -> str:
    """A hash is told by its first digits."""
    return str(value) if len(str(value)) < 40 else f"{str(value)[:19]}..."
