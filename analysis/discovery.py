"""Folders of one kind under a folder, under names that tell them apart: their paths from there."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from model.errors import TextError

DEPTH = 3  # folders below the one that is searched
MOST = 200  # folders that are listed: the newest


@dataclass(frozen=True)
class Place:
    """Where one is."""

    name: str
    path: Path


@dataclass(frozen=True)
class Found:
    """What lies under a folder, the newest first."""

    places: tuple[Place, ...]
    left_out: int = 0

    def named(self, names: Sequence[str]) -> list[Place]:
        """The places of these names, those that are there, in the order of the names."""
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
    """The folders of a kind under a folder, or the one that it is itself; nothing is looked for inside of one.

    Args:
        folder: where to search.
        what: they are called in messages.
        is_one: whether a folder is one.
        newest: when one last changed.
        closed: names of folders that hold none.
        most: how many are listed.

    Raises:
        TextError: there is no such folder, or it cannot be read.
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
            except OSError:  # a folder of someone else's
                continue
    return found


def readable(name: str) -> str:
    """A name that can be printed and sent, even where the file system holds bytes that are no text."""
    return os.fsencode(name).decode("utf-8", "replace")
