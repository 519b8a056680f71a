"""The project's folder in the user's cache: finished models, work in progress, locks, file hashes.

A model folder appears there complete or not at all: it is built in `staging/`, flushed to disk and renamed into
`models/` while a lock is held. Nothing here knows what a model is.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import platformdirs

from model.atomic_files import as_json, atomic_folder, atomic_write, read_json
from model.errors import ExportError, ModelBroken, ModelError
from model.one_writer import acquired
from model.progress import Tell, silent
from model.reading.json_text import parse_json
from model.reading.regular_files import open_regular, read_text

RECORD = "micro_step.json"
"""Written last into a finished model folder: its source, its hashes, and what was changed."""


def cache_dir() -> Path:
    """Return the folder for fetched models: `$MICRO_STEP_CACHE`, else the platform's user cache folder."""
    override = os.environ.get("MICRO_STEP_CACHE")
    return Path(override).expanduser() if override else Path(platformdirs.user_cache_dir("micro_step"))


def times_folder() -> Path:
    """Return the folder of the measured times of models' passes on this machine."""
    return cache_dir() / "times"


def model_folder(slug: str) -> Path:
    """Return the folder of the finished model of that name, which need not exist."""
    return cache_dir() / "models" / slug


def is_finished(slug: str) -> bool:
    """True if that model folder exists and was finished."""
    return (model_folder(slug) / RECORD).is_file()


@contextmanager
def lock(slug: str, progress: Tell = silent) -> Iterator[None]:
    """Hold the lock of one model; another process that wants the same model waits."""
    path = cache_dir() / "locks" / f"{slug}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = acquired(path, lambda: progress(f"waiting for another process that is fetching {slug}", None))
    except OSError as error:
        raise ModelError(
            f"cannot write to the cache folder {cache_dir()} ({error.strerror}); set MICRO_STEP_CACHE to another"
        ) from error
    try:
        yield
    finally:
        held.release()


@contextmanager
def build(slug: str) -> Iterator[Path]:
    """Yield an empty folder to build a model in; it replaces `model_folder(slug)` if the block ends without an error.

    Call it while holding the lock of `slug`.
    """
    with atomic_folder(model_folder(slug), cache_dir() / "staging") as folder:
        yield folder


def file_sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SETTLED_NS = 2_000_000_000
"""A file that changed less than this ago may change again without another time stamp: clocks of file systems tick."""
_TRIES = 3  # of hashing a file that somebody writes meanwhile


class FileState(NamedTuple):
    """What changes with a file's content. Its owner can set the modification time back, but not the time of change."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, path: Path) -> FileState:
        stat = path.stat()
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    @property
    def settled(self) -> bool:
        """Whether a later write is sure to show in the state: if not, git calls the file racily clean."""
        return time.time_ns() - max(self.modified_ns, self.changed_ns) > SETTLED_NS


def remembered_sha256(path: Path) -> str:
    """Return `file_sha256`, and remember it for as long as the file's state stays the same.

    Raises:
        OSError: the file cannot be read.
        ModelBroken: it keeps changing while it is read.
    """
    path = path.resolve()
    note = cache_dir() / "hashes" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"
    state = FileState.of(path)
    known = read_json(note)
    if isinstance(known, dict) and known.get("state") == list(state) and len(str(known.get("sha256"))) == 64:
        return str(known["sha256"])
    for _ in range(_TRIES):
        settled = state.settled  # before it is read
        digest = file_sha256(path)
        before, state = state, FileState.of(path)
        if state == before:
            break
    else:
        raise ModelBroken(f"{path} keeps changing while it is read; try again when it is complete")
    if settled:
        with suppress(OSError, ExportError):  # a cache that cannot be written only costs the time to hash again
            atomic_write(note, as_json({"state": list(state), "sha256": digest}))
    return digest


def read_record(folder: Path) -> dict[str, object]:
    """Return the record written when the folder was made; empty for a folder that this project did not make."""
    try:
        record = parse_json(read_text(folder / RECORD))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
