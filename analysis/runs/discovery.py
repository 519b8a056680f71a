"""The training runs under a folder, under names that tell them apart: their folders' paths from there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from analysis.discovery import MOST, Found, Place, readable, search
from data.run_folder import CHECKPOINTS, FACTS, LOG, MODEL
from model.errors import TextError

MOST_SHOWN = 6  # runs that are compared


def find_runs(folder: Path) -> Found:
    """The runs under a folder, or the one run that the folder is.

    Raises:
        TextError: there is no such folder, or it cannot be read.
    """
    return search(folder, "training runs", is_run, _newest, (CHECKPOINTS, MODEL), MOST)


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
    return [Place(readable(path.relative_to(root).as_posix()), path) for path in real]


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run."""
    try:
        return (folder / FACTS).is_file()
    except (OSError, ValueError):
        return False


def _newest(path: Path) -> float:
    """When its log or its facts last changed."""
    return max((each.stat().st_mtime for name in (FACTS, LOG) if (each := path / name).exists()), default=0.0)
