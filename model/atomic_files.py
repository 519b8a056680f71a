"""Files that are there whole or not at all, even after a power cut; room for them; and what of JSON can be read."""

import glob
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from model.errors import ExportError, TooLarge
from model.reading.json_text import parse_json
from model.reading.regular_files import open_regular, read_text

_LOCK_ATTEMPTS = 3


def atomic_write(path: Path, content: bytes, hint: str = "") -> None:
    """Write a file beside its place as *.part, push it to the disk, and move it there.

    Args:
        path: of the file; its folder is made if it is not there.
        content: all of it.
        hint: what the message of a failure ends with.
    """
    with atomic_open(path, hint) as file:
        file.write(content)


@contextmanager
def atomic_open(path: Path, hint: str = "") -> Iterator[BinaryIO]:
    """Write a file in pieces, as `atomic_write`; after an error nothing of it is left, and an older file stays.

    What a process that was killed has left is removed when the same file is written the next time.
    """
    start = f".{path.name[:200]}."
    make_folder(path.parent)
    try:
        _remove_unused(path.parent, start, ".part")
        part, file, lock = _new_file(path.parent, start)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            if lock is not None:
                os.close(lock)
        flush_entry(path.parent)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}{'; ' if hint else ''}{hint}") from error


@contextmanager
def atomic_folder(place: Path, beside: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder. If the block ends without an error, it is pushed to the disk and replaces what is there.

    After an error nothing of it is left. What a process that was killed has left is removed when the same folder is
    built the next time.

    Args:
        place: of the folder.
        beside: the folder in which it is built, on the same disk; None: the one that `place` is in.
    """
    beside = beside or place.parent
    make_folder(beside)
    with _own_folder(beside, f".{place.name[:200]}.", ".part") as part:
        yield part
        part.chmod(0o755)
        flush_folder(part)
        make_folder(place.parent)
        if place.exists():
            shutil.rmtree(place)
        part.replace(place)
        flush_entry(place.parent)


@contextmanager
def scratch_folder(purpose: str, beside: Path | None = None) -> Iterator[Path]:
    """Yield an empty folder that is removed after the block, or, if the process is killed, at the next such call.

    Args:
        purpose: the beginning of its name, the same for all folders of this kind.
        beside: the folder in which it is made; None: the system's for temporary files.
    """
    with _own_folder(beside or Path(tempfile.gettempdir()), f"{purpose}_", ".scratch") as folder:
        yield folder


@contextmanager
def _own_folder(beside: Path, start: str, end: str) -> Iterator[Path]:
    """Make a folder that is locked as long as it is used, and remove those of the kind that nobody uses any more."""
    _remove_unused(beside, start, end)
    for _ in range(_LOCK_ATTEMPTS):
        folder = Path(tempfile.mkdtemp(end, start, beside))
        lock = _locked(folder)
        if lock is not None and folder.exists():  # another process may have taken it for a leftover
            break
        if lock is not None:
            os.close(lock)
        with suppress(OSError):
            folder.rmdir()
    else:  # a disk or system without such locks
        folder, lock = Path(tempfile.mkdtemp(end, start, beside)), None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_unused(folder: Path, start: str, end: str) -> None:
    """Remove what processes that have ended left of files and folders with such names."""
    for leftover in folder.glob(f"{glob.escape(start)}????????{end}"):
        if (lock := _locked(leftover)) is not None:
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)
            os.close(lock)


def _new_file(folder: Path, start: str) -> tuple[Path, BinaryIO, int | None]:
    """Open a new file that is locked, so that `_remove_unused` of another process leaves it alone."""
    while True:
        part = folder / f"{start}{uuid.uuid4().hex[:8]}.part"
        file = part.open("wb")
        lock = _locked(part)
        if part.exists():
            return part, file, lock
        file.close()  # it was taken for a leftover before it was locked
        if lock is not None:
            os.close(lock)


def _locked(place: Path) -> int | None:
    """Lock a file or folder until the descriptor is closed or its process ends; None if another one has locked it."""
    try:
        import fcntl
    except ImportError:  # Windows has no such locks; leftovers stay there
        return None
    descriptor = None
    with suppress(OSError):  # it is locked, or gone, or its disk knows no locks
        descriptor = os.open(place, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    if descriptor is not None:
        os.close(descriptor)
    return None


def make_folder(folder: Path) -> list[Path]:
    """Make a folder, and those above it, and return those that were not there before, the innermost first."""
    try:
        new = [each for each in (folder, *folder.parents) if not each.exists()]
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror}") from error
    return new


def check_writable(path: Path) -> None:
    """Refuse, before heavy work, a file or folder that cannot be made."""
    above = next(each for each in path.absolute().parents if each.exists())
    if not above.is_dir():
        raise ExportError(f"{path} cannot be written: {above} is a file")
    if not os.access(above, os.W_OK):
        raise ExportError(f"{path} cannot be written: you may not write to {above}")


def append(path: Path, content: bytes, size: int | None, stays: str) -> None:
    """Put bytes at the end of a file, behind its first `size` bytes if these are said, and push them to the disk."""
    make_folder(path.parent)
    try:
        with path.open("ab") as file:
            if size is not None:
                file.truncate(size)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise ExportError(f"{path} cannot be written ({error.strerror}); {stays}") from error


def as_json(values: Mapping[str, Any]) -> bytes:
    """A file of values that people can read."""
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def read_json(path: Path) -> Any:
    """What a file of JSON holds; None where it cannot be read."""
    try:
        return parse_json(read_text(path))
    except (OSError, ValueError):
        return None


def need_disk(folder: Path, size: float, what: str, remedy: str) -> None:
    """Raise TooLarge, with both numbers, if the disk of a folder, which may not be there yet, has fewer bytes free."""
    place = folder
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < size:
        raise TooLarge(
            f"{what} needs {size / 1e9:.2f} GB of disk in {folder}, but only {free / 1e9:.2f} GB are free; {remedy}"
        )


def flush_folder(folder: Path) -> None:
    """Push every file of a folder to the disk, so that a power cut after its renaming finds them complete."""
    for path in folder.rglob("*"):
        if path.is_file():
            with open_regular(path) as file:
                os.fsync(file.fileno())
    flush_entry(folder)


def flush_entry(folder: Path) -> None:
    """Push the names that a folder holds to the disk, after a file in it was renamed."""
    if os.name != "posix":  # Windows cannot open a directory, and needs no flush of one
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
