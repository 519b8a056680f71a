"""`evaluate`: a model on benchmarks, over values of tau, with the speed-up beside the score.

`report` and `samples` look at evaluations that were made before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.answer import Result
from analysis.figures.figure import Figure
from analysis.provenance import Provenance
from analysis.view import Theme
from evals.benchmark import find_benchmark, read_limits
from evals.options import EvalOptions, Likelihood
from evals.report import figures, sample_figures
from evals.report.provenance import document_origin, invalid_origin, report_origin, sample_origin
from evals.report.sample_tables import document_table
from evals.report.score_rows import Evaluated, ScoreRow, read_folder, report_rows
from evals.report.side_by_side import KEYS, Show, SideBySide, read_side
from evals.report.tables import lines, notes, score_table
from evals.requirements import require_harness
from evals.run import evaluate as run_benchmarks
from micro_step.inputs import ModelLike, Models
from model.arguments import checked
from model.errors import MicroStepError
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
    verify: bool | None = None,
    eps: float | None = None,
    by_cost: bool = False,
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
        verify: the base of a micro_step model checks each draft. None: what the model was trained for.
        eps: with this check, the base also keeps a drafted token that it gives at least this share of its likeliest
            token's probability. None, or 1: lossless.
        by_cost: with this check, drafts are as long as the measured times of passes make quickest.
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
        verify,
        eps,
        by_cost,
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
    return _report("evaluate", {out.name: read_folder(out)}, list(limits))


@checked
def report(
    folders: str | Path | Sequence[str], *, tasks: str | Sequence[str] | None = None
) -> Result[tuple[ScoreRow, ...]]:
    """Report on evaluations that were made before, side by side.

    Args:
        folders: of an evaluation, or a list of such folders.
        tasks: names of benchmarks. None: all that were asked.

    Returns:
        As `evaluate`.

    Raises:
        MicroStepError: a folder holds no evaluation, or it is damaged.
    """
    listed = [folders] if isinstance(folders, str | Path) else list(folders)
    return _report("report", {Path(each).name: read_folder(Path(each), texts=False) for each in listed}, tasks)


@checked
def samples(
    runs: str | Path | Sequence[str],
    *,
    score: str | None = None,
    show: Show = "all",
    document: int | None = None,
    answer: int = 1,
) -> Result[SideBySide]:
    """Look at the answers of one run of a benchmark, or of two side by side.

    Args:
        runs: a file of samples, FOLDER/BENCHMARK@TAU.jsonl, or a list of one or two.
        score: the score that judges, or the way of reading. None: the benchmark's own.
        show: all, differing, a-wrong, b-wrong or invalid: which documents.
        document: whose answers figures show, by its number in the data set. None: the first that is shown.
        answer: which of several, from 1.

    Returns:
        A row a document in `table`.

    Raises:
        MicroStepError: a file holds no samples, or two files are of different benchmarks.
    """
    listed = [runs] if isinstance(runs, str | Path) else list(runs)
    if len(listed) > len(KEYS):
        raise MicroStepError(f"one run or two are looked at, got {len(listed)} files")
    sides = tuple(read_side(Path(each)) for each in listed)
    beside = SideBySide(sides, score or sides[0].benchmark.metric)
    shown = next(iter(beside.documents(show)), None) if document is None else document
    if shown is None or not any(beside.of(shown)):
        raise MicroStepError(f"there is no document {document}" if document is not None else "no document is shown")
    drawn: dict[str, Callable[[Theme], Figure]] = {
        "documents": lambda theme: sample_figures.documents(beside, show, theme),
        "tokens": lambda theme: sample_figures.tokens(beside, shown, answer, theme),
        "facts": lambda theme: sample_figures.facts(beside, shown, theme),
        "invalid": lambda theme: sample_figures.invalid(sides[0], beside.score, theme),
    }
    origins: dict[str, Callable[[], Provenance]] = {
        "documents": lambda: document_origin(beside, show),
        "invalid": lambda: invalid_origin(sides[0], beside.score),
    }
    return Result(
        "samples",
        beside,
        tuple(drawn),
        EvaluationView(),
        lambda: document_table(beside, show),
        lambda: f"{len(beside.documents(show)):,} documents, judged by {beside.score}",
        lambda name, view: drawn[name](view.theme),
        lambda name, view: origins.get(name, lambda: sample_origin(beside, shown, answer))(),
    )


def _report(
    kind: str, evaluated: Mapping[str, Evaluated], tasks: str | Sequence[str] | None
) -> Result[tuple[ScoreRow, ...]]:
    """What evaluations found, of these benchmarks or of all."""
    every = report_rows(list(evaluated.values()))
    names = list(dict.fromkeys(row.benchmark.name for row in every))
    if tasks is not None:
        names = [tasks] if isinstance(tasks, str) else list(tasks)
    rows = tuple(row for row in every if row.benchmark.name in names)
    by_figure = {REPORT: rows}
    for name in names:
        by_figure[f"score_{name}"] = tuple(row for row in rows if row.benchmark.name == name)
    return Result(
        kind,
        rows,
        tuple(by_figure),
        EvaluationView(),
        lambda: score_table(rows),
        lambda: "\n".join("  ".join(cells) for cells in lines(rows)),
        lambda name, view: _draw(name, by_figure[name], view),
        lambda name, view: _provenance(name, evaluated, by_figure[name]),
        tuple(notes(rows)),
    )


def _draw(name: str, rows: Sequence[ScoreRow], view: EvaluationView) -> Figure:
    return figures.report(rows, view.theme) if name == REPORT else figures.score(rows, view.theme)


def _provenance(name: str, evaluated: Mapping[str, Evaluated], rows: Sequence[ScoreRow]) -> Provenance:
    return report_origin(evaluated, rows, None if name == REPORT else rows[0].benchmark.name)
