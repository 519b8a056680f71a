"""`micro-step eval run`, `report`, `samples` and `list`. Torch and the harness wait until needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from evals.requirements import AllowCodeExecution, require_harness
from model.command_options import (
    Device,
    Dtype,
    Limit,
    ListOf,
    Local,
    Revision,
    TemplateOptions,
    Threads,
    Tokenizer,
    flatten_options,
)
from model.errors import MicroStepError
from model.terminal import one_line, progress_bar


def list_benchmarks() -> None:
    """The benchmarks that there are."""
    from evals.benchmark import benchmarks

    table = Table(box=None, pad_edge=False)
    for title in ("benchmark", "what it asks, and what its score is"):
        table.add_column(title)
    for each in benchmarks().values():
        table.add_row(each.name, each.about + (", run in a sandbox" if each.runs_code else ""))
    Console().print(table)


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
    template: TemplateOptions,
    confidence: Annotated[
        tuple[float, ...],
        typer.Option(help="Values of tau of a micro_step model, as 0.3,0.5; above 1 the base alone writes."),
        ListOf(float, least=0),
    ] = (0.8,),
    limit: Limit = None,
    local: Local = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    system: Annotated[str | None, typer.Option(help="System prompt, with --chat.")] = None,
    multiturn: Annotated[bool, typer.Option("--multiturn", help="Examples as turns, with --chat.")] = False,
    batch_rows: Annotated[int, typer.Option(min=1, help="Answers at once.")] = 8,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an answer, instead of the benchmark's own.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Answers to each document, for pass@10 and pass@100.")] = 1,
    temperature: Annotated[
        float, typer.Option(min=0, help="Temperature of sampling, with top-p 0.95; 0 is greedy.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0,
    likelihood: Annotated[
        Literal["own", "base"], typer.Option(help="Log-likelihoods in the model's own segments, or by its base alone.")
    ] = "own",
    allow_code_execution: AllowCodeExecution = False,
    weak_sandbox: Annotated[
        bool,
        typer.Option("--weak-sandbox", help="Run them under limits alone: the network and your files are in reach."),
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
    from evals.run import EvalOptions, evaluate
    from model.hub.loading import ModelSpec, load

    if threads is not None:
        torch.set_num_threads(threads)
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
        ("limits" if weak_sandbox else "full") if allow_code_execution else None,
        template.arguments,
        template.template_date,
    )
    spec = ModelSpec(model, revision=revision, dtype=dtype, device=device, tokenizer=tokenizer)
    try:
        with progress_bar() as tell:
            evaluate(lambda: load(spec, tell), chosen, list(dict.fromkeys(confidence)), out, local, options, tell, own)
    except KeyboardInterrupt:
        print(one_line(f"{out} holds the samples so far; run the same command again to resume"), file=sys.stderr)
        raise
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
    found = report_rows([read_folder(folder, texts=False) for folder in folders])
    found = [row for row in found if asked is None or row.benchmark in asked]
    if not found:
        raise MicroStepError(f"{' and '.join(map(str, folders))}: there is no sample of {', '.join(tasks or ())}")
    if out is not None:
        write_table(found, out)
        print(out)
    if figures is not None:
        from evals.report.figures import write_figures

        for path in write_figures(found, figures, figure_format):
            print(path)
    if out is None and figures is None:
        from evals.report.tables import show

        show(found)


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
        print_or_save(sample_tables.document_table(beside, show), out, f"a row a document; judged by {beside.score}")
        return
    if table == "difference":
        found = sample_tables.difference_table(beside)
        print_or_save(found, out, f"B minus A in {beside.score}, paired by document, with its 95% interval")
        return
    if table == "invalid":
        print_or_save(
            sample_tables.invalid_table(sides[0], beside.score), out, f"a row an answer that {beside.score} cannot read"
        )
        return
    if document is None or not any(beside.of(document)):
        raise MicroStepError(f"--table {table} needs a --document that is there, got {document}")
    if table == "tokens":
        print_or_save(sample_tables.token_table(beside, document, answer), out, "a row a token")
    else:
        print_or_save(sample_tables.fact_table(beside, document), out, "a row a fact")
