"""`micro-step eval run`, `report`, `samples` and `list`. Torch and the harness wait until needed."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from data.ray_pool import RayOptions
from evals.options import AllowCodeExecution, AskOptions, EvalOptions
from evals.requirements import require_harness
from evals.sandbox.runner import Isolation
from model.command_options import (
    Device,
    Dtype,
    ListOf,
    Local,
    Revision,
    TemplateOptions,
    Threads,
    Tokenizer,
    flatten_options,
)
from model.errors import MicroStepError
from model.tables import print_table
from model.terminal import resumable


def list_benchmarks() -> None:
    """The benchmarks that there are."""
    from evals.benchmark import benchmarks

    rows = [
        (each.name, each.about + (", run in a sandbox" if each.runs_code else "")) for each in benchmarks().values()
    ]
    print_table(("benchmark", "what it asks, and what its score is"), rows)


@flatten_options
def run_command(
    model: Annotated[str, typer.Option(help="Catalog name, hub id or folder, of a micro_step or a plain model.")],
    tasks: Annotated[
        str,
        typer.Option(
            help="Benchmarks with commas between (`micro-step eval list`); NAME:N asks for the first N documents."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder. An existing run is resumed.")],
    asked: AskOptions,
    template: TemplateOptions,
    cluster: RayOptions,
    confidence: Annotated[
        tuple[float, ...],
        typer.Option(help="Values of tau of a micro_step model, as 0.3,0.5; above 1 the base alone writes."),
        ListOf(float, least=0),
    ] = (0.8,),
    local: Local = None,
    allow_code_execution: AllowCodeExecution = False,
    weak_sandbox: Annotated[
        bool,
        typer.Option("--weak-sandbox", help="Run them under limits alone: your files are in reach."),
    ] = False,
    dtype: Dtype = "auto",
    device: Device = "auto",
    revision: Revision = None,
    tokenizer: Tokenizer = None,
    threads: Threads = None,
) -> None:
    """Run benchmarks (resumable), each sample kept as its batch is done."""
    from evals.benchmark import find_benchmark, read_limits

    limits = read_limits(tasks)
    chosen = [find_benchmark(name) for name in limits]
    own = {name: most for name, most in limits.items() if most is not None}
    require_harness()
    import torch

    from evals.report.score_rows import read_folder, report_rows
    from evals.report.tables import show
    from evals.run import evaluate
    from model.hub.loading import ModelSpec, load

    if threads is not None:
        torch.set_num_threads(threads)
    isolation: Isolation | None = ("limits" if weak_sandbox else "full") if allow_code_execution else None
    options = EvalOptions(
        **vars(asked), isolation=isolation, template=template.arguments, template_date=template.template_date
    )
    spec = ModelSpec(model, revision=revision, dtype=dtype, device=device, tokenizer=tokenizer)
    with resumable(out, "the samples so far") as tell:
        taus = list(dict.fromkeys(confidence))
        evaluate(lambda: load(spec, tell), chosen, taus, out, local, options, tell, own, cluster)
    show(report_rows([read_folder(out)]))
    print(out)


@flatten_options
def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders that `run --out` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write the table: .md, .csv, .html or .tex, by its ending.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for a figure of each benchmark: score against tokens a macro step.")
    ] = None,
    figure_format: Annotated[
        Literal["html", "svg", "png", "pdf"], typer.Option(help="All but html need Chrome on this machine.")
    ] = "svg",
    tasks: Annotated[tuple[str, ...] | None, typer.Option(help="Only these benchmarks."), ListOf(str)] = None,
) -> None:
    """The table of some runs, with standard errors, and its figures."""
    from evals.benchmark import find_benchmark
    from evals.report.score_rows import read_folder, report_rows
    from evals.report.tables import TABLES, write_table

    if out is not None and out.suffix not in TABLES:
        raise MicroStepError(f"--out must end in one of {', '.join(TABLES)}, got {out.name}")
    asked = None if tasks is None else [find_benchmark(name) for name in tasks]
    rows = report_rows([read_folder(folder, texts=False) for folder in folders])
    rows = [row for row in rows if asked is None or row.benchmark in asked]
    if not rows:
        raise MicroStepError(f"{' and '.join(map(str, folders))}: there is no sample of {', '.join(tasks or ())}")
    if out is not None:
        write_table(rows, out)
        print(out)
    if figures is not None:
        from evals.report.figures import write_figures

        for path in write_figures(rows, figures, figure_format):
            print(path)
    if out is None and figures is None:
        from evals.report.tables import show

        show(rows)


@flatten_options
def samples_command(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="A [B]", help="Files of samples of one benchmark: FOLDER/BENCHMARK@TAU.jsonl."),
    ],
    table: Annotated[
        Literal["documents", "difference", "tokens", "facts", "invalid"],
        typer.Option(
            help="A row a document; B minus A on the same documents, with its interval; a row a token of --document; a"
            " fact of it; an answer of A that is invalid."
        ),
    ] = "documents",
    score: Annotated[
        str | None, typer.Option(help="The score that judges, or the way of reading; by default the benchmark's.")
    ] = None,
    show: Annotated[
        Literal["all", "differing", "a-wrong", "b-wrong", "invalid"],
        typer.Option(help="Documents: all, scored differently, wrong in A and right in B, the reverse, or invalid."),
    ] = "all",
    document: Annotated[int | None, typer.Option(min=0, help="Its number in the data set, from 0.")] = None,
    answer: Annotated[int, typer.Option(min=1, help="Of several to a document, which.")] = 1,
    out: Annotated[Path | None, typer.Option(help="File to write: .csv, .parquet or .json.")] = None,
) -> None:
    """Samples of one run, or of two side by side."""
    from analysis.options import check_table, print_or_save
    from evals.report import sample_tables
    from evals.report.side_by_side import SideBySide, read_side

    check_table(out)
    if len(runs) > 2:
        raise MicroStepError(f"one run or two are looked at, got {len(runs)} files")
    sides = tuple(read_side(path) for path in runs)
    beside = SideBySide(sides, score or sides[0].benchmark.metric)
    if table == "documents":
        rows, caption = sample_tables.document_table(beside, show), f"a row a document; judged by {beside.score}"
    elif table == "difference":
        rows = sample_tables.difference_table(beside)
        caption = f"B minus A in {beside.score}, paired by document, with its 95% interval"
    elif table == "invalid":
        rows = sample_tables.invalid_table(sides[0], beside.score)
        caption = f"a row an answer that {beside.score} cannot read"
    elif document is None or not any(beside.of(document)):
        raise MicroStepError(f"--table {table} needs a --document that is there, got {document}")
    elif table == "tokens":
        rows, caption = sample_tables.token_table(beside, document, answer), "one row per token"
    else:
        rows, caption = sample_tables.fact_table(beside, document), "a row a fact"
    print_or_save(rows, out, caption)
