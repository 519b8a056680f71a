"""One writer at a time: the lock of a folder or file that is written over a long time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from model.atomic_files import make_folder
from model.errors import ExportError
from model.progress import Tell

LOCK = ".lock"


def acquired(file: Path, busy: Callable[[], None]) -> filelock.BaseFileLock:
    """Return the held lock of a file.

    Args:
        file: its folder is there.
        busy: called if another process holds it, before it is waited for; may raise instead.
    """
    held = filelock.FileLock(file)
    try:
        held.acquire(timeout=0)
        return held
    except filelock.Timeout:
        pass
    busy()
    held.acquire()
    return held


@contextmanager
def one_writer(path: Path, tell: Tell | None = None, *, is_file: bool = False) -> Iterator[None]:
    """Be the one process that writes into a folder, which is made if it is not there, or to a file.

    Where nothing was written in the end, the new folders are removed.

    Args:
        path: the folder or file.
        tell: told that another process is waited for; None: another writer is an error.
        is_file: it is a file, and its lock stands beside it.

    Raises:
        ExportError: another process writes there, or the lock cannot be written.
    """
    file = path.with_name(f".{path.name}{LOCK}") if is_file else path / LOCK
    new = make_folder(file.parent)

    def busy() -> None:
        if tell is None:
            raise ExportError(f"another process writes into {path}; wait for it, or give another --out")
        tell(f"waiting for another process that writes into {path}", None)

    try:
        held = acquired(file, busy)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error
    try:
        yield
    finally:
        if not (path.exists() if is_file else any(each != file for each in path.iterdir())):  # nothing was begun
            file.unlink()
            with suppress(OSError):  # another process waits here, and has made the lock anew
                for folder in new:
                    folder.rmdir()
        held.release()
