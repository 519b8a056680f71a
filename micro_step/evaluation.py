"""`evaluate`: a model on benchmarks, over values of tau, with the speed-up beside the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.answer import Result
from analysis.figures.figure import Figure
from analysis.provenance import Provenance
from analysis.view import Theme
from evals.benchmark import find_benchmark, read_limits
from evals.options import EvalOptions, Likelihood
from evals.report import figures
from evals.report.provenance import report_origin
from evals.report.score_rows import Evaluated, ScoreRow, read_folder, report_rows
from evals.report.tables import lines, notes, score_table
from evals.requirements import require_harness
from evals.run import evaluate as run_benchmarks
from micro_step.inputs import ModelLike, Models
from model.arguments import checked
from model.terminal import progress_bar
from model.text.document import template_arguments

REPORT = "report"  # the figure of all scores


@dataclass(frozen=True)
class EvaluationView:
    """How figures of an evaluation look."""

    theme: Theme = "light"


@checked
def evaluate(
    model: ModelLike,
    tasks: str | Sequence[str],
    *,
    out: str | Path,
    confidence: float | Sequence[float] = 0.8,
    limit: int | None = None,
    local: str | Path | None = None,
    chat: bool = False,
    system: str | None = None,
    multiturn: bool = False,
    batch_rows: int = 8,
    max_new_tokens: int | None = None,
    repeats: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    likelihood: Likelihood = "own",
    allow_code_execution: bool = False,
    template: Mapping[str, Any] | None = None,
    template_date: str | None = None,
) -> Result[tuple[ScoreRow, ...]]:
    """Evaluate a model on benchmarks, or go on where a run was stopped.

    Args:
        model: a name, a path, a specification, or a loaded model; a micro_step model or any other.
        tasks: names of benchmarks; NAME:N asks for the first N documents alone.
        out: folder of the samples; every batch is kept as it is done.
        confidence: values of tau, of a micro_step model; above 1 the base alone writes.
        limit: only the first so many documents of each benchmark.
        local: folder with the data sets' files. None: the hub.
        chat: ask through the model's chat template.
        system: system prompt, with `chat`.
        multiturn: examples as turns of the conversation, with `chat`.
        batch_rows: answers at once.
        max_new_tokens: of an answer. None: the benchmark's own.
        repeats: answers to each document.
        temperature: 0 is greedy.
        seed: of sampling.
        likelihood: own or base: log-likelihoods in the model's own segments, or by its base alone.
        allow_code_execution: run the programs that the model writes, in a sandbox.
        template: arguments of the chat template.
        template_date: YYYY-MM-DD that the chat template writes.

    Returns:
        A row a score in `table`: of each benchmark, model and tau, with its standard error and what it cost.

    Raises:
        MicroStepError: the harness is not installed, a benchmark is not known, or a run cannot be made or gone on with.
    """
    require_harness()
    names = [tasks] if isinstance(tasks, str) else list(tasks)
    limits = read_limits(",".join(names))
    values = [confidence] if isinstance(confidence, int | float) else list(confidence)
    options = EvalOptions(
        limit,
        chat,
        system,
        multiturn,
        batch_rows,
        max_new_tokens,
        repeats,
        temperature,
        seed,
        likelihood,
        "full" if allow_code_execution else None,
        template_arguments(template) if template else None,
        template_date,
    )
    models, out = Models(), Path(out)
    spec = models.spec(model)
    own = {name: most for name, most in limits.items() if most is not None}
    with progress_bar() as tell:
        run_benchmarks(
            lambda: models.load(spec),
            [find_benchmark(name) for name in limits],
            [float(value) for value in values],
            out,
            None if local is None else Path(local),
            options,
            tell,
            own,
        )
    evaluated = read_folder(out)
    rows = tuple(report_rows([evaluated]))
    by_figure = {REPORT: rows}
    for name in limits:
        by_figure[f"score_{name}"] = tuple(row for row in rows if row.benchmark.name == name)
    return Result(
        "evaluate",
        rows,
        tuple(by_figure),
        EvaluationView(),
        lambda: score_table(rows),
        lambda: "\n".join("  ".join(cells) for cells in lines(rows)),
        lambda name, view: _draw(name, by_figure[name], view),
        lambda name, view: _provenance(name, {out.name: evaluated}, by_figure[name]),
        tuple(notes(rows)),
    )


def _draw(name: str, rows: Sequence[ScoreRow], view: EvaluationView) -> Figure:
    return figures.report(rows, view.theme) if name == REPORT else figures.score(rows, view.theme)


def _provenance(name: str, evaluated: Mapping[str, Evaluated], rows: Sequence[ScoreRow]) -> Provenance:
    return report_origin(evaluated, rows, None if name == REPORT else rows[0].benchmark.name)
