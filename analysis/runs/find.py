"""The training runs under a folder, under names that tell them apart: their folders' paths from there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from data.runs import CHECKPOINTS, FACTS, LOG, MODEL
from model.errors import TextError

DEPTH = 3  # folders below the one that is searched
MOST = 200  # runs that are listed: the newest
MOST_SHOWN = 6  # runs that are compared


@dataclass(frozen=True)
class Place:
    """Where a run is."""

    name: str
    path: Path


@dataclass(frozen=True)
class Found:
    """The runs under a folder, the newest first."""

    places: tuple[Place, ...]
    left_out: int = 0

    def named(self, names: Sequence[str]) -> list[Place]:
        """The runs of these names, those that are there, in the order of the names."""
        known = {place.name: place for place in self.places}
        return [known[name] for name in names if name in known]


def find_runs(folder: Path) -> Found:
    """The runs under a folder, or the one run that the folder is.

    Raises:
        TextError: there is no such folder, or it cannot be read.
    """
    if is_run(folder):
        return Found((Place(_readable(folder.resolve().name), folder),))
    try:
        if not folder.is_dir():
            raise TextError(f"there is no folder {folder}; give one that holds training runs")
        found = sorted(_below(folder, DEPTH), key=_newest, reverse=True)
    except (OSError, ValueError) as error:
        raise TextError(f"{folder} cannot be searched for training runs: {error}") from None
    places = tuple(Place(_readable(path.relative_to(folder).as_posix()), path) for path in found[:MOST])
    return Found(places, max(0, len(found) - MOST))


def find_all(paths: Sequence[Path], folder: Path | None = None) -> list[Place]:
    """The runs that are meant by paths, each of a run or of a folder of runs, in this order.

    Args:
        paths: none of them twice.
        folder: names are paths from there; by default from the innermost folder that holds all the runs.

    Raises:
        TextError: a path holds no run.
    """
    found: list[Path] = []
    for path in paths:
        places = find_runs(path).places
        if not places:
            raise TextError(f"{path} holds no training run; `python -m trainer` makes one")
        found += [place.path for place in sorted(places, key=lambda place: place.name)]
    real = list(dict.fromkeys(path.resolve() for path in found))
    root = Path(os.path.commonpath([path.parent for path in real])) if folder is None else folder.resolve()
    outside = [path for path in real if not path.is_relative_to(root)]
    if outside:
        raise TextError(f"{outside[0]} is not under {root}, from which the runs are named")
    return [Place(_readable(path.relative_to(root).as_posix()), path) for path in real]


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    try:
        return (folder / FACTS).is_file()
    except (OSError, ValueError):
        return False


def _below(folder: Path, depth: int) -> list[Path]:
    """Folders of runs; nothing is looked for inside of one."""
    found = []
    with os.scandir(folder) as entries:
        inside = [Path(entry.path) for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    for path in inside:
        if is_run(path):
            found.append(path)
        elif depth > 1 and path.name not in (CHECKPOINTS, MODEL):
            try:
                found += _below(path, depth - 1)
            except OSError:  # a folder of someone else's
                continue
    return found


def _newest(path: Path) -> tuple[float, str]:
    """By when its log or its facts last changed."""
    times = [each.stat().st_mtime for name in (FACTS, LOG) if (each := path / name).exists()]
    return max(times, default=0.0), str(path)


def _readable(name: str) -> str:
    """A name that can be printed and sent, even where the file system holds bytes that are no text."""
    return os.fsencode(name).decode("utf-8", "replace")
