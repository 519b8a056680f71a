"""The benchmarks of a grid: a trained model is put to them in a folder of its own run, and their scores are read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data.run_folder import Run
from evals.ablation.grid import Evaluate
from evals.benchmark import documents, find_benchmark
from evals.report.score_rows import ScoreRow, read_folder, report_rows
from evals.run import EvalOptions, evaluate, sandbox_for
from evals.samples import file_name, read_samples
from evals.sandbox.runner import Isolation
from model.atomic_files import as_json
from model.hub.loading import ModelSpec, load
from model.progress import Tell


def options_of(how: Evaluate, isolation: Isolation | None) -> EvalOptions:
    """As `evaluate` takes them.

    Raises:
        MicroStepError: they contradict each other.
    """
    given = how.model_dump(exclude={"tasks", "confidence", "dtype"})
    needed = any(find_benchmark(name).runs_code for name in how.tasks)
    return EvalOptions(**given, isolation=isolation if needed else None)


def check(asked: Sequence[Evaluate], local: Path | None, isolation: Isolation | None) -> None:
    """See that every benchmark can be run, before anything is trained.

    Raises:
        MicroStepError: there is no such benchmark, its data cannot be had, it runs programs and this was not allowed,
            or the options contradict each other.
    """
    for how in dict.fromkeys(asked):
        chosen = [find_benchmark(name) for name in how.tasks]
        sandbox_for(chosen, options_of(how, isolation))
        for each in chosen:
            documents(each, local, 1)


def folder_of(run: Path, how: Evaluate, isolation: Isolation | None) -> Path:
    """Where the samples lie: other options have another folder, other benchmarks and values of tau the same one."""
    said = as_json({**asdict(options_of(how, isolation)), "dtype": how.dtype})
    return run / f"evaluated-{hashlib.sha256(said).hexdigest()[:8]}"


def is_evaluated(folder: Path, how: Evaluate) -> bool:
    """Whether every benchmark is there whole, under each tau or as a plain model's."""

    def whole(task: str, tau: float | None) -> bool:
        found = read_samples(folder / file_name(task, tau))
        return found is not None and found[0].complete

    return all(whole(task, None) or all(whole(task, tau) for tau in how.confidence) for task in how.tasks)


def evaluated(
    done: Run, how: Evaluate, local: Path | None, device: str, isolation: Isolation | None, tell: Tell
) -> dict[str, float]:
    """The scores of a finished run and its tokens a macro step, of each benchmark at each tau; none is run again.

    Raises:
        MicroStepError: as `evals.run.evaluate`.
    """
    folder = folder_of(done.path, how, isolation)
    if not is_evaluated(folder, how):
        spec = ModelSpec(str(done.model), dtype=how.dtype, device=device)
        chosen = [find_benchmark(name) for name in how.tasks]
        evaluate(lambda: load(spec, tell), chosen, how.confidence, folder, local, options_of(how, isolation), tell)
    rows = {(row.benchmark.name, row.tau): row for row in report_rows([read_folder(folder)])}
    wanted = [(task, tau) for task in how.tasks for tau in (None, *how.confidence)]
    return {name: value for key in wanted if key in rows for name, value in _columns(rows[key]).items()}


def _columns(row: ScoreRow) -> dict[str, float]:
    place = row.benchmark.name if row.tau is None else f"{row.benchmark.name} at {row.tau:g}"
    found = {f"{place}: {name}": row.scores[name].value for name in row.shown}
    if row.tau is not None:
        found[f"{place}: tokens a macro step"] = row.tokens_per_macro_step
    return found
