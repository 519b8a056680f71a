"""Caches training logs, so that only new lines are read. All readers of a server share it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import time

from analysis.discovery import Place
from analysis.runs.log import Follower, RunLog, RunStatus, read_log
from data.run_folder import FACTS, LOG
from model.errors import MicroStepError
from model.hub.cache import FileState

LOGS = 24  # logs kept in memory
LAST_LINES = 20  # lines of each split that a table of runs needs

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class LoadedRuns:
    """The runs that could be read, and sentences about the others."""

    runs: tuple[RunLog, ...]
    problems: tuple[str, ...] = ()


class LogCache:
    """Reads runs, and remembers how far it has read."""

    def __init__(self) -> None:
        self._followers: OrderedDict[Path, Follower] = OrderedDict()
        self._brief: dict[Path, tuple[Stamp, RunLog]] = {}
        self._guard = threading.Lock()

    def runs(self, places: Sequence[Place]) -> LoadedRuns:
        """The runs with all lines of their logs."""
        return self._all(places, whole=True)

    def briefly(self, places: Sequence[Place]) -> LoadedRuns:
        """The runs with only the last lines of their logs, enough for a table of runs."""
        return self._all(places, whole=False)

    def _all(self, places: Sequence[Place], whole: bool) -> LoadedRuns:
        found, problems = [], []
        for place in places:
            try:
                with self._guard:
                    found.append(self._whole(place) if whole else self._briefly(place))
            except MicroStepError as error:
                problems.append(str(error))
        return LoadedRuns(tuple(found), tuple(problems))

    def _whole(self, place: Place) -> RunLog:
        path = place.path.absolute()
        follower = self._followers.pop(path, None) or Follower(place.path / LOG)
        found = read_log(place.path, place.name, time(), follower)
        self._followers[path] = follower
        while len(self._followers) > LOGS:
            self._followers.popitem(last=False)
        return found

    def _briefly(self, place: Place) -> RunLog:
        path, stamp = place.path.absolute(), _stamp(place.path)
        known, run = self._brief.get(path, ((), None))
        if run is None or known != stamp:
            run = brief(self._whole(place))
            self._brief[path] = stamp, run
        return replace(run, name=place.name, path=place.path, look=RunStatus.at(place.path, time()))


def brief(run: RunLog) -> RunLog:
    """A run with only the last lines of its log."""
    kept = {id(line) for split in ("train", "validation") for line in run.of(split)[-LAST_LINES:]}
    return replace(run, lines=tuple(line for line in run.lines if id(line) in kept))


def _stamp(path: Path) -> Stamp:
    found = list[int]()
    for name in (FACTS, LOG):
        try:
            found += FileState.of(path / name)
        except OSError:
            found.append(-1)
    return tuple(found)
