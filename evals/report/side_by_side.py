"""The samples of one run of a benchmark, or of two beside each other: which documents, and what is known of each.

Knows neither models nor the harness; what stands in a file of samples is
data from outside and may hold anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from evals.aggregate import EXPONENTIATED, Value
from evals.benchmark import Benchmark, find_benchmark
from evals.samples import Sample, SampleFile, WrittenAnswer, read_samples
from model.errors import MicroStepError, TextError

Show = Literal["all", "differing", "a-wrong", "b-wrong", "invalid"]
SHOWS: tuple[Show, ...] = get_args(Show)
KEYS = ("A", "B")


@dataclass(frozen=True)
class SampleSide:
    """One run of a benchmark: a model under one tau."""

    name: str
    path: Path
    file: SampleFile

    @cached_property
    def samples(self) -> Mapping[int, Sample]:
        """By the document's number."""
        return {sample.document: sample for sample in self.file.samples}

    @cached_property
    def benchmark(self) -> Benchmark:
        """What was asked."""
        return find_benchmark(self.file.head.benchmark)


def read_side(path: Path, name: str | None = None) -> SampleSide:
    """A file of samples as a side; its path is its name if it has none.

    Raises:
        TextError: it is no such file, or it is damaged.
    """
    found = read_samples(path)
    if found is None:
        raise TextError(f"{path} holds no samples; give a file BENCHMARK@TAU.jsonl of an evaluation")
    return SampleSide(name or str(path), path, found[0])


@dataclass(frozen=True)
class SideBySide:
    """One run, or two of the same benchmark, judged by one of its scores.

    Raises:
        MicroStepError: they are of different benchmarks, or there is no such score.
    """

    sides: tuple[SampleSide, ...]
    score: str

    def __post_init__(self) -> None:
        if len({side.file.head.benchmark for side in self.sides}) > 1:
            raise MicroStepError(f"runs of one benchmark are compared, got {' and '.join(map(_asked, self.sides))}")
        known = scores(self.sides)
        if self.score not in known:
            raise MicroStepError(f"{_asked(self.sides[0])} has no score {self.score!r}; it has {', '.join(known)}")

    @property
    def benchmark(self) -> Benchmark:
        """What was asked."""
        return self.sides[0].benchmark

    @property
    def alike(self) -> bool:
        """Whether all were asked the same documents, as far as the files say."""
        return len({(side.file.head.data, side.file.head.documents) for side in self.sides}) == 1

    def documents(self, show: Show = "all") -> list[int]:
        """The numbers of the documents that a choice shows, rising.

        Raises:
            MicroStepError: the choice compares, and there is one run.
        """
        if show not in ("all", "invalid") and len(self.sides) < len(KEYS):
            raise MicroStepError(f"{show!r} compares two runs; give a second one")
        there = sorted({number for side in self.sides for number in side.samples})
        return [number for number in there if self._shows(number, show)]

    def of(self, document: int) -> list[Sample | None]:
        """Each run's sample of a document; None where it has not come to it."""
        return [side.samples.get(document) for side in self.sides]

    def _shows(self, number: int, show: Show) -> bool:
        found = self.of(number)
        if show == "all":
            return True
        if show == "invalid":
            return any(why for sample in found if sample is not None for _, why in invalid(sample, self.score))
        a, b = (math.nan if sample is None else value(sample, self.score) for sample in found)
        if not self.benchmark.higher_is_better:
            a, b = -a, -b
        return {"differing": a != b and not (a != a and b != b), "a-wrong": a < b, "b-wrong": b < a}[show]


def _asked(side: SampleSide) -> str:
    return side.file.head.benchmark


def scores(sides: Sequence[SampleSide]) -> list[str]:
    """The scores that the samples have, the benchmark's own first; how many were invalid is none."""
    found = dict.fromkeys(name for side in sides for sample in side.file.samples for name in sample.scores)
    first = [name for name in (sides[0].benchmark.metric, *sides[0].benchmark.beside) if name in found]
    return [*first, *(name for name in found if name not in first and not name.endswith("invalid"))]


def value(sample: Sample, score: str) -> float:
    """A sample's score as one number, NaN where it has none."""
    given: Value = sample.scores.get(score, math.nan)
    if not isinstance(given, tuple):
        return float(given)
    ratio = given[0] / given[1] if given[1] else math.nan
    return float(np.exp(ratio)) if score in EXPONENTIATED else ratio


def read(sample: Sample, way: str) -> list[str | None]:
    """What was read out of each answer, or what came of running it; nothing where answers are not read."""
    return _of_way(sample.detail.get("read", sample.detail.get("outcome")), way)


def invalid(sample: Sample, way: str) -> list[tuple[int, str]]:
    """The answers that could not be read in a way, from 1, each with the reason."""
    return [(i, why) for i, why in enumerate(_of_way(sample.detail.get("invalid"), way), 1) if why]


def failed(sample: Sample) -> list[tuple[int, str]]:
    """The programs that did not pass, from 1, each with the reason."""
    return [(i, why) for i, why in enumerate(_of_way(sample.detail.get("reason"), ""), 1) if why]


def _of_way(found: Any, way: str) -> list[str | None]:
    """A list with an entry an answer: there is one for each way of reading, or only one."""
    found = found.get(way) if isinstance(found, Mapping) else found
    return [None if each is None else str(each) for each in found] if isinstance(found, list) else []


def ways(sides: Sequence[SampleSide]) -> list[str]:
    """In how many ways answers are read; none where nothing is read."""
    kinds = [sample.detail.get("invalid") for side in sides for sample in side.file.samples]
    named = dict.fromkeys(str(name) for kind in kinds if isinstance(kind, Mapping) for name in kind)
    return [name for name in scores(sides) if name in named] or (
        [sides[0].benchmark.metric] if any(isinstance(kind, list) for kind in kinds) else []
    )


def target(found: Sequence[Sample | None]) -> str:
    """The right answer of a document, where the samples say it."""
    return next((str(sample.detail["target"]) for sample in found if sample and "target" in sample.detail), "")


def per_step(sample: Sample) -> float:
    """Tokens per macro step."""
    return sample.tokens / max(1, sample.macro_steps)


def segments(piece: WrittenAnswer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each token the number of its segment, from 0, and its place in it."""
    place = np.arange(len(piece.tokens))
    starts = np.array([0, *piece.starts] if 0 not in piece.starts else piece.starts, dtype=np.int64)
    of = np.searchsorted(starts, place, side="right") - 1
    return of, place - starts[of]
