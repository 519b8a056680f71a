"""Evaluate the trained models of a grid: run the benchmarks in a folder of each run, and read their scores."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data.run_folder import Run
from evals.ablation.grid import Evaluate
from evals.benchmark import documents, find_benchmark
from evals.options import EvalOptions
from evals.report.score_rows import ScoreRow, read_folder, report_rows
from evals.run import evaluate, sandbox_for
from evals.samples import file_name, read_samples
from evals.sandbox.runner import Isolation
from model.atomic_files import as_json
from model.hub.loading import ModelSpec, load
from model.progress import Tell


def options_of(evaluation: Evaluate, isolation: Isolation | None) -> EvalOptions:
    """Return the options for `evaluate`."""
    given = evaluation.model_dump(exclude={"tasks", "confidence", "dtype"})
    needed = any(find_benchmark(name).runs_code for name in evaluation.tasks)
    return EvalOptions(**given, isolation=isolation if needed else None)


def check(evaluations: Sequence[Evaluate], local: Path | None, isolation: Isolation | None) -> None:
    """Check that every benchmark can be run, before anything is trained.

    Raises:
        MicroStepError: there is no such benchmark, its data cannot be read, it runs programs without permission, or the
            options contradict each other.
    """
    for evaluation in dict.fromkeys(evaluations):
        chosen = [find_benchmark(name) for name in evaluation.tasks]
        sandbox_for(chosen, options_of(evaluation, isolation))
        for benchmark in chosen:
            documents(benchmark, local, 1)


def folder_of(run: Path, evaluation: Evaluate, isolation: Isolation | None) -> Path:
    """Return the folder of the samples. It depends on the options, but not on the benchmarks and values of tau."""
    settings = as_json({**asdict(options_of(evaluation, isolation)), "dtype": evaluation.dtype})
    return run / f"evaluated-{hashlib.sha256(settings).hexdigest()[:8]}"


def is_evaluated(folder: Path, evaluation: Evaluate) -> bool:
    """True if every benchmark is complete, under each tau or as a plain model's."""

    def is_complete(task: str, tau: float | None) -> bool:
        samples = read_samples(folder / file_name(task, tau))
        return samples is not None and samples[0].complete

    return all(
        is_complete(task, None) or all(is_complete(task, tau) for tau in evaluation.confidence)
        for task in evaluation.tasks
    )


def evaluated(
    done: Run, evaluation: Evaluate, local: Path | None, device: str, isolation: Isolation | None, tell: Tell
) -> dict[str, float]:
    """Return the scores of a finished run and its tokens per macro step, for each benchmark and tau.

    Finished benchmarks are not run again.
    """
    folder = folder_of(done.path, evaluation, isolation)
    if not is_evaluated(folder, evaluation):
        spec = ModelSpec(str(done.model), dtype=evaluation.dtype, device=device)
        chosen = [find_benchmark(name) for name in evaluation.tasks]
        evaluate(
            lambda: load(spec, tell),
            chosen,
            evaluation.confidence,
            folder,
            local,
            options_of(evaluation, isolation),
            tell,
        )
    rows = {(row.benchmark.name, row.tau): row for row in report_rows([read_folder(folder)])}
    wanted = [(task, tau) for task in evaluation.tasks for tau in (None, *evaluation.confidence)]
    return {name: value for key in wanted if key in rows for name, value in _columns(rows[key]).items()}


def _columns(row: ScoreRow) -> dict[str, float]:
    place = row.benchmark.name if row.tau is None else f"{row.benchmark.name} at {row.tau:g}"
    columns = {f"{place}: {name}": row.scores[name].value for name in row.shown}
    if row.tau is not None:
        columns[f"{place}: tokens a macro step"] = row.tokens_per_macro_step
    return columns
