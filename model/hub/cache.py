"""The project's folder in the user's cache: finished models, work in progress, locks, file hashes.

A model folder appears there complete or not at all: it is built in `staging/`, flushed to disk and renamed into
`models/` while a lock is held. Nothing here knows what a model is.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from model.atomic_files import atomic_folder, atomic_write
from model.errors import ExportError, ModelError
from model.one_writer import acquired
from model.progress import Tell, silent
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


def remembered_sha256(path: Path) -> str:
    """Return `file_sha256`, cached under the file's path, size and modification time."""
    path = path.resolve()
    state = path.stat()
    key = hashlib.sha256(f"{path}\0{state.st_size}\0{state.st_mtime_ns}".encode()).hexdigest()
    note = cache_dir() / "hashes" / key[:32]
    try:
        known = read_text(note)
        if len(known) == 64:
            return known
    except OSError:
        pass
    digest = file_sha256(path)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(note, digest.encode())
    except (OSError, ExportError):
        pass  # a cache that cannot be written only costs the time to hash again
    return digest


def read_record(folder: Path) -> dict[str, object]:
    """Return the record written when the folder was made; empty for a folder that this project did not make."""
    try:
        record = json.loads(read_text(folder / RECORD))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
