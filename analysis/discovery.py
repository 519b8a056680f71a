"""Finds folders of one kind, such as training runs, below a folder, and names them by their relative paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import TextError

DEPTH = 3  # levels below the searched folder
MOST = 200  # folders that are listed, newest first


@dataclass(frozen=True)
class Place:
    """One of the folders, with its name."""

    name: str
    path: Path


@dataclass(frozen=True)
class Found:
    """The folders that were found, newest first."""

    places: tuple[Place, ...]
    left_out: int = 0  # older folders that are not listed

    def named(self, names: Sequence[str]) -> list[Place]:
        """The places with these names, in the order of the names; unknown names are skipped."""
        known = {place.name: place for place in self.places}
        return [known[name] for name in names if name in known]


def search(
    folder: Path,
    what: str,
    is_one: Callable[[Path], bool],
    newest: Callable[[Path], float],
    closed: Collection[str] = (),
    most: int = MOST,
) -> Found:
    """The folders of a kind below a folder, or the folder itself if it is one. Their subfolders are not searched.

    Args:
        folder: where to search.
        what: the name of the kind in messages.
        is_one: whether a folder is of this kind.
        newest: when such a folder last changed.
        closed: names of folders that are not searched.
        most: how many are listed.

    Raises:
        TextError: the folder does not exist, or cannot be read.
    """
    if is_one(folder):
        return Found((Place(readable(folder.resolve().name), folder),))
    try:
        if not folder.is_dir():
            raise TextError(f"there is no folder {folder}; give one that holds {what}")
        found = sorted(_below(folder, is_one, closed, DEPTH), key=lambda path: (newest(path), str(path)), reverse=True)
    except (OSError, ValueError) as error:
        raise TextError(f"{folder} cannot be searched for {what}: {error}") from None
    places = tuple(Place(readable(path.relative_to(folder).as_posix()), path) for path in found[:most])
    return Found(places, max(0, len(found) - most))


def _below(folder: Path, is_one: Callable[[Path], bool], closed: Collection[str], depth: int) -> list[Path]:
    found = []
    with os.scandir(folder) as entries:
        inside = [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    for path in inside:
        if is_one(path):
            found.append(path)
        elif depth > 1 and path.name not in closed:
            try:
                found += _below(path, is_one, closed, depth - 1)
            except OSError:  # a folder that this user may not read
                continue
    return found


def readable(name: str) -> str:
    """A name that can be printed and sent, even if the file system holds bytes that are not text."""
    return os.fsencode(name).decode("utf-8", "replace")
