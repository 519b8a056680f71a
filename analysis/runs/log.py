"""Reads the log of a training run for tables and figures; of a growing log, only the new lines.

A damaged line is left out and reported; the lines around it are kept. If steps were repeated after a run was resumed
from a checkpoint, the last repetition counts.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import BinaryIO

from data.run_folder import FACTS, LOG, MODEL, LogLine, RunFacts, Split, checkpoints, final_model, from_line, read_facts
from model.errors import TextError
from model.reading.regular_files import open_regular
from model.short_repr import ShortRepr

KEPT_END = 200  # bytes at the end of the part that was read: they differ if the log was rewritten
LEAST_PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class CheckpointRecord:
    """A checkpoint of a run that opens as a model."""

    step: int | None  # None: the final model
    path: Path

    @property
    def title(self) -> str:
        return "final model" if self.step is None else f"step {self.step:,}"


@dataclass(frozen=True)
class RunStatus:
    """The state of a run's folder at one moment; an export keeps it with the log."""

    finished: bool = False
    checkpoints: tuple[CheckpointRecord, ...] = ()  # oldest first, the final model last
    age: float = 0.0  # seconds since the log last changed

    @classmethod
    def at(cls, path: Path, now: float) -> RunStatus:
        found = [CheckpointRecord(_step(each), each / MODEL) for each in checkpoints(path)]
        final = final_model(path)
        if final is not None:
            found.append(CheckpointRecord(None, final))
        return cls(final is not None, tuple(found), max(0.0, now - _written(path)))


@dataclass(frozen=True, repr=False)
class RunLog(ShortRepr):
    """A training run with its log."""

    name: str  # its folder's path, relative to the searched folder
    path: Path
    facts: RunFacts
    lines: tuple[LogLine, ...]  # in the order of steps, one split after the other
    look: RunStatus = field(default_factory=RunStatus)
    damage: tuple[str, ...] = ()  # sentences about what could not be read
    repeated: int = 0  # lines that were left out since their steps were repeated

    def of(self, split: Split) -> list[LogLine]:
        return [line for line in self.lines if line.split == split]

    def last(self, split: Split) -> LogLine | None:
        return next((line for line in reversed(self.lines) if line.split == split), None)

    @property
    def steps(self) -> int:
        """Steps done, according to the log."""
        return max((line.step for line in self.lines), default=0)

    @property
    def patience(self) -> float:
        """Seconds without a new line after which a run counts as stopped: five of its longest pauses."""
        times = [line.seconds for line in self.lines[-20:]]
        pauses = [b - a for a, b in pairwise(times)]
        return max(LEAST_PATIENCE, 5 * max(pauses, default=0.0))

    @property
    def state(self) -> str:
        """running, stopped or finished: a guess from the age of the log where there is no final model."""
        if self.look.finished:
            return "finished"
        return "running" if self.look.age <= self.patience else "stopped"

    @property
    def seconds_left(self) -> float | None:
        """Seconds of training left at the speed of the last lines; None if there is no speed yet."""
        lines = self.of("train")[-20:]
        if len(lines) < 2 or lines[-1].step <= lines[0].step:
            return None
        pace = (lines[-1].seconds - lines[0].seconds) / (lines[-1].step - lines[0].step)
        return max(0, self.facts.steps - self.steps) * pace

    @property
    def speed(self) -> float | None:
        """Training tokens per second: the median of the last 20 lines; None without any."""
        speeds = [line.tokens_per_second for line in self.of("train")[-20:] if line.tokens_per_second is not None]
        return median(speeds) if speeds else None

    @property
    def positions(self) -> int:
        """Number of micro positions in the log."""
        return max((len(line.position_tokens) for line in self.lines), default=0)


@dataclass
class Follower:
    """Reads one log repeatedly, each time only what was added, unless the log was rewritten."""

    path: Path
    _lines: list[LogLine] = field(default_factory=list)
    _damaged: list[int] = field(default_factory=list)  # line numbers, from 1
    _read: int = 0  # bytes
    _number: int = 0  # lines
    _end: bytes = b""  # of what was read
    _file: tuple[int, int] | None = None  # device and inode

    def read(self) -> tuple[tuple[LogLine, ...], tuple[str, ...], int]:
        """The valid lines, sentences about damage, and the number of lines left out since their steps were repeated."""
        try:
            with open_regular(self.path) as file:
                self._follow(file)
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise TextError(f"{self.path} cannot be read: {error.strerror}") from None
        kept = _standing(self._lines)
        return kept, self._damage(), len(self._lines) - len(kept)

    def _damage(self) -> tuple[str, ...]:
        if not self._damaged:
            return ()
        more = len(self._damaged) - 1
        others = f", nor {'is 1 other' if more == 1 else f'are {more:,} others'}" if more else ""
        kept = f"the other {len(self._lines):,} are shown" if self._lines else "there are no others"
        return (f"{self.path}, line {self._damaged[0]:,} is not a line of a training log{others}; {kept}",)

    def _follow(self, file: BinaryIO) -> None:
        stat = os.fstat(file.fileno())
        file.seek(max(0, self._read - len(self._end)))
        if self._file != (stat.st_dev, stat.st_ino) or file.read(len(self._end)) != self._end:
            self._forget()
            file.seek(0)
        self._file = stat.st_dev, stat.st_ino
        new = file.read()
        whole = new[: new.rfind(b"\n") + 1]  # an unfinished line waits
        for line in whole.split(b"\n")[:-1]:
            self._number += 1
            try:
                self._lines.append(from_line(line))
            except ValueError:
                self._damaged.append(self._number)
        self._read += len(whole)
        self._end = (self._end + whole)[-KEPT_END:]

    def _forget(self) -> None:
        self._lines, self._damaged, self._read, self._number, self._end, self._file = [], [], 0, 0, b"", None


def read_log(
    path: Path, name: str, now: float, follower: Follower | None = None, look: RunStatus | None = None
) -> RunLog:
    """Read the folder of a run.

    Args:
        path: the folder.
        name: its name among other runs.
        now: seconds since 1970, for the age of its log.
        follower: the reader that has read its log before.
        look: the folder's state, in place of its state now.

    Raises:
        TextError: there is no run, its facts are damaged, or the folder cannot be read.
    """
    facts = read_facts(path)
    lines, damage, repeated = (follower or Follower(path / LOG)).read()
    return RunLog(name, path, facts, lines, look or RunStatus.at(path, now), damage, repeated)


def _standing(lines: list[LogLine]) -> tuple[LogLine, ...]:
    """Drop lines whose steps were repeated: a later line has fewer steps, or as many in the same split."""
    kept, least, of_split = list[LogLine](), float("inf"), dict[str, int]()
    for line in reversed(lines):
        if line.step <= least and line.step < of_split.get(line.split, line.step + 1):
            kept.append(line)
            of_split[line.split] = line.step
        least = min(least, line.step)
    return tuple(reversed(kept))


def _written(path: Path) -> float:
    """When the log last changed, or the facts if there is no log yet."""
    for name in (LOG, FACTS):
        try:
            return (path / name).stat().st_mtime
        except OSError:
            continue
    return 0.0


def _step(folder: Path) -> int:
    digits = folder.name.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 0
