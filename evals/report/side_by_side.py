"""The samples of one run of a benchmark, or of two side by side: the documents, and the facts about each.

This module knows neither models nor the harness. A file of samples is external data and may hold anything.
"""

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
    """One run of a benchmark: a model with one tau."""

    name: str
    path: Path
    file: SampleFile

    @cached_property
    def samples(self) -> Mapping[int, Sample]:
        return {sample.document: sample for sample in self.file.samples}

    @cached_property
    def benchmark(self) -> Benchmark:
        return find_benchmark(self.file.head.benchmark)


def read_side(path: Path, name: str | None = None) -> SampleSide:
    """Read a file of samples; its name defaults to its path."""
    samples = read_samples(path)
    if samples is None:
        raise TextError(f"{path} holds no samples; give a file BENCHMARK@TAU.jsonl of an evaluation")
    return SampleSide(name or str(path), path, samples[0])


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
            raise MicroStepError(
                f"only runs of one benchmark can be compared, got {' and '.join(map(_benchmark_name, self.sides))}"
            )
        known = scores(self.sides)
        if self.score not in known:
            raise MicroStepError(
                f"{_benchmark_name(self.sides[0])} has no score {self.score!r}; it has {', '.join(known)}"
            )

    @property
    def benchmark(self) -> Benchmark:
        return self.sides[0].benchmark

    @property
    def alike(self) -> bool:
        """True if all runs used the same documents, as far as the files say."""
        return len({(side.file.head.data, side.file.head.documents) for side in self.sides}) == 1

    def documents(self, show: Show = "all") -> list[int]:
        """Return the numbers of the documents in a selection, rising."""
        if show not in ("all", "invalid") and len(self.sides) < len(KEYS):
            raise MicroStepError(f"{show!r} compares two runs; give a second one")
        numbers = sorted({number for side in self.sides for number in side.samples})
        return [number for number in numbers if self._shows(number, show)]

    def of(self, document: int) -> list[Sample | None]:
        """Return each run's sample of a document; None if the run does not have it yet."""
        return [side.samples.get(document) for side in self.sides]

    def _shows(self, number: int, show: Show) -> bool:
        samples = self.of(number)
        if show == "all":
            return True
        if show == "invalid":
            return any(why for sample in samples if sample is not None for _, why in invalid(sample, self.score))
        a, b = (math.nan if sample is None else value(sample, self.score) for sample in samples)
        if not self.benchmark.higher_is_better:
            a, b = -a, -b
        return {"differing": a != b and not (a != a and b != b), "a-wrong": a < b, "b-wrong": b < a}[show]


def _benchmark_name(side: SampleSide) -> str:
    return side.file.head.benchmark


def scores(sides: Sequence[SampleSide]) -> list[str]:
    """Return the scores that the samples have, the benchmark's own first, without counts of invalid answers."""
    names = dict.fromkeys(name for side in sides for sample in side.file.samples for name in sample.scores)
    first = [name for name in (sides[0].benchmark.metric, *sides[0].benchmark.beside) if name in names]
    return [*first, *(name for name in names if name not in first and not name.endswith("invalid"))]


def value(sample: Sample, score: str) -> float:
    given: Value = sample.scores.get(score, math.nan)
    if not isinstance(given, tuple):
        return float(given)
    ratio = given[0] / given[1] if given[1] else math.nan
    return float(np.exp(ratio)) if score in EXPONENTIATED else ratio


def read(sample: Sample, way: str) -> list[str | None]:
    """Return the value read from each answer, or the outcome of running it; empty if answers are not read."""
    return _of_way(sample.detail.get("read", sample.detail.get("outcome")), way)


def invalid(sample: Sample, way: str) -> list[tuple[int, str]]:
    """Return the numbers (from 1) of the answers that could not be read in a way, with the reasons."""
    return [(i, why) for i, why in enumerate(_of_way(sample.detail.get("invalid"), way), 1) if why]


def failed(sample: Sample) -> list[tuple[int, str]]:
    """Return the numbers (from 1) of the programs that did not pass, with the reasons."""
    return [(i, why) for i, why in enumerate(_of_way(sample.detail.get("reason"), ""), 1) if why]


def _of_way(entries: Any, way: str) -> list[str | None]:
    """Return a list with one entry per answer, for one way of reading if there are several."""
    entries = entries.get(way) if isinstance(entries, Mapping) else entries
    return [None if entry is None else str(entry) for entry in entries] if isinstance(entries, list) else []


def ways(sides: Sequence[SampleSide]) -> list[str]:
    """Return the ways in which answers are read; empty if none are."""
    kinds = [sample.detail.get("invalid") for side in sides for sample in side.file.samples]
    named = dict.fromkeys(str(name) for kind in kinds if isinstance(kind, Mapping) for name in kind)
    return [name for name in scores(sides) if name in named] or (
        [sides[0].benchmark.metric] if any(isinstance(kind, list) for kind in kinds) else []
    )


def target(samples: Sequence[Sample | None]) -> str:
    """Return the right answer of a document, if the samples have it."""
    return next((str(sample.detail["target"]) for sample in samples if sample and "target" in sample.detail), "")


def per_step(sample: Sample) -> float:
    return sample.tokens / max(1, sample.macro_steps)


def segments(piece: WrittenAnswer) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each token's segment number, from 0, and its place in the segment."""
    place = np.arange(len(piece.tokens))
    starts = np.array([0, *piece.starts] if 0 not in piece.starts else piece.starts, dtype=np.int64)
    segment = np.searchsorted(starts, place, side="right") - 1
    return segment, place - starts[segment]
