"""Finds the training runs below a folder, and names them by their relative paths."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from analysis.discovery import MOST, Found, Place, readable, search
from data.run_folder import CHECKPOINTS, FACTS, LOG, MODEL
from model.errors import TextError

MOST_SHOWN = 6  # runs that can be compared


def find_runs(folder: Path) -> Found:
    """The runs below a folder, or the folder itself if it is a run.

    Raises:
        TextError: the folder does not exist, or cannot be read.
    """
    return search(folder, "training runs", is_run, _newest, (CHECKPOINTS, MODEL), MOST)


def find_all(paths: Sequence[Path], folder: Path | None = None) -> list[Place]:
    """The runs at these paths, in this order; a path may be a run or a folder of runs.

    Args:
        paths: without repeats.
        folder: names are relative to it; by default the innermost folder that holds all the runs.
    """
    found: list[Path] = []
    for path in paths:
        places = find_runs(path).places
        if not places:
            raise TextError(f"{path} holds no training run; `micro-step train` makes one")
        found += [place.path for place in sorted(places, key=lambda place: place.name)]
    real = list(dict.fromkeys(path.resolve() for path in found))
    root = Path(os.path.commonpath([path.parent for path in real])) if folder is None else folder.resolve()
    outside = [path for path in real if not path.is_relative_to(root)]
    if outside:
        raise TextError(f"{outside[0]} is not below {root}, to which the names of runs are relative")
    return [Place(readable(path.relative_to(root).as_posix()), path) for path in real]


def is_run(folder: Path) -> bool:
    """Whether a folder is a training run."""
    try:
        return (folder / FACTS).is_file()
    except (OSError, ValueError):
        return False


def _newest(path: Path) -> float:
    """When its log or its facts last changed."""
    return max((each.stat().st_mtime for name in (FACTS, LOG) if (each := path / name).exists()), default=0.0)
