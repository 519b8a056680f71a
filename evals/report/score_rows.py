"""Turn folders of samples into the rows of a table: every score with its standard error, and its cost.

Everything is computed from the samples; nothing is stored twice. This module knows neither models nor the harness.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evals.aggregate import Average, averages
from evals.benchmark import Benchmark, find_benchmark
from evals.samples import SampleFile, file_name, read_manifest, read_samples
from model.errors import TextError

_MODEL = ("name", "device", "dtype")
_SETTING = (
    "batch_rows",
    "max_new_tokens",
    "repeats",
    "chat",
    "temperature",
    "limit",
)  # keys of the options that affect speed


@dataclass(frozen=True)
class Evaluated:
    path: Path
    manifest: Mapping[str, Any]
    files: tuple[SampleFile, ...]


@dataclass(frozen=True)
class ScoreRow:
    benchmark: Benchmark
    model: str
    tau: float | None  # None: a plain model
    scores: Mapping[str, Average]
    samples: int
    documents: int  # number of documents when the run is complete
    tokens: int
    macro_steps: int
    seconds: float
    cut: int  # number of prompts that did not fit the context
    path: Path  # path of the samples
    speedup: float | None = None  # ratio of tokens per second to those of `over`
    over: str | None = None

    @property
    def score(self) -> Average:
        return self.scores[self.benchmark.metric]

    @property
    def tokens_per_macro_step(self) -> float:
        return self.tokens / max(1, self.macro_steps)

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second over all samples, including reading the prompts."""
        return self.tokens / max(1e-9, self.seconds)

    @property
    def name(self) -> str:
        """The model with its tau."""
        return self.model if self.tau is None else f"{self.model} ({self.tau:g})"

    @property
    def shown(self) -> list[str]:
        return [self.benchmark.metric, *(name for name in self.benchmark.beside if name in self.scores)]

    def invalid(self, score: str) -> Average | None:
        """Return the share of answers that could not be read for a score; None if there is no such share."""
        return self.scores.get(f"{score} invalid", self.scores.get("invalid"))


def read_folder(folder: Path, texts: bool = True) -> Evaluated:
    """Read a folder of samples, whether or not its run is complete."""
    manifest = read_manifest(folder)
    missing = [name for name in _MODEL if not isinstance(manifest["model"].get(name), str)]
    missing += [name for name in _SETTING if name not in manifest["options"]]
    missing += [name for name in ("threads",) if name not in manifest]
    if missing:
        raise TextError(f"the manifest of {folder} lacks {', '.join(missing)}, so it is damaged")
    files = []
    for path in sorted(folder.glob("*@*.jsonl")):
        read = read_samples(path)
        if read is not None and read[0].samples:
            file = read[0]
            if path.name != file_name(file.head.benchmark, file.head.tau):
                raise TextError(f"{path} holds {file_name(file.head.benchmark, file.head.tau)}: it was renamed")
            metric = find_benchmark(file.head.benchmark).metric
            if any(metric not in sample.scores for sample in file.samples):
                raise TextError(f"{path} is damaged: a sample has no score {metric!r}")
            files.append(file if texts else bare(file))
    if not files:
        raise TextError(f"{folder} holds no sample yet")
    return Evaluated(folder, manifest, tuple(files))


def bare(file: SampleFile, texts_of: Container[int] = ()) -> SampleFile:
    """Return a file with the prompts and answers of these documents only, but scores and reasons of all."""
    samples = (
        sample if sample.document in texts_of else replace(sample, prompt="", answers=()) for sample in file.samples
    )
    return replace(file, samples=tuple(samples))


def report_rows(evaluations: Sequence[Evaluated]) -> list[ScoreRow]:
    """Return a row for each benchmark, model and tau: benchmarks together, plain models first, tau falling.

    A row's speed is compared with the same model's at tau above 1, where its base generates alone with the same code.
    Without such a run it is compared with the plain model that is its base, if answers were generated one at a time: in
    a batch, a plain model waits for its longest answer. Both must have run with the same settings.
    """
    names = _names(evaluations)
    rows = [
        (_row(file, name, evaluation.path), evaluation)
        for evaluation, name in zip(evaluations, names, strict=True)
        for file in evaluation.files
    ]
    rows.sort(key=lambda pair: (pair[0].benchmark.name, pair[0].tau is not None, pair[0].model, -(pair[0].tau or 0)))
    return [_compared(row, where, rows) for row, where in rows]


def _names(evaluations: Sequence[Evaluated]) -> list[str]:
    """Return the models' names; equal names get as much of the folder's path as distinguishes them."""
    names = [_decoded(evaluation.manifest) for evaluation in evaluations]
    paths = [evaluation.path.absolute().parts for evaluation in evaluations]
    depth, labels = max(map(len, paths), default=1), names
    for count in range(1, depth + 1):
        ends = ["/".join(parts[-count:]) for parts in paths]
        labels = [f"{name} [{end}]" if names.count(name) > 1 else name for name, end in zip(names, ends, strict=True)]
        if len({*labels}) == len(labels):
            break
    return labels


def _decoded(manifest: Mapping[str, Any]) -> str:
    """Return a model's name, and how it decoded where that was asked for."""
    name, eps, verify = manifest["model"]["name"], manifest["options"].get("eps"), manifest["options"].get("verify")
    if manifest["options"].get("by_cost"):
        return f"{name}, lossless by cost"
    if isinstance(eps, float) and eps < 1:
        return f"{name}, relaxed to eps {eps:g}"
    return name if verify is None else f"{name}, {'lossless' if verify else 'merged'}"


def _row(file: SampleFile, model: str, folder: Path) -> ScoreRow:
    samples = file.samples
    return ScoreRow(
        find_benchmark(file.head.benchmark),
        model,
        file.head.tau,
        averages([sample.scores for sample in samples]),
        len(samples),
        file.head.documents,
        sum(sample.tokens for sample in samples),
        sum(sample.macro_steps for sample in samples),
        sum(sample.seconds for sample in samples),
        sum(sample.cut > 0 for sample in samples),
        folder / file_name(file.head.benchmark, file.head.tau),
    )


def _compared(row: ScoreRow, where: Evaluated, rows: Sequence[tuple[ScoreRow, Evaluated]]) -> ScoreRow:
    """Return the row with its speed over its base's; scoring is not generation and is not compared."""
    if row.tau is None or row.tau > 1 or not row.benchmark.generates:
        return row
    base = (where.manifest["model"].get("micro_step") or {}).get("base")
    alike = [
        (other, it)
        for other, it in rows
        if other.benchmark is row.benchmark and other.samples == row.samples and _setting(it) == _setting(where)
    ]
    own = [other for other, it in alike if it is where and other.tau is not None and other.tau > 1]
    plain = [
        other
        for other, it in alike
        if other.tau is None and it.manifest["model"]["name"] == base and it.manifest["options"]["batch_rows"] == 1
    ]
    reference = next(iter([*own, *plain]), None)
    if reference is None:
        return row
    return replace(row, speedup=row.tokens_per_second / reference.tokens_per_second, over=reference.name)


def _setting(where: Evaluated) -> tuple[Any, ...]:
    """Return the settings that two runs must share for their speeds to be compared."""
    model, options = where.manifest["model"], where.manifest["options"]
    return (where.manifest["threads"], model["device"], model["dtype"], *(options[name] for name in _SETTING))
