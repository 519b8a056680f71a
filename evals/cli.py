"""`python -m evals`: run benchmarks, list them, report what they gave. Torch and the harness wait until needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from evals.ablation.cli import ablate_command
from evals.requirements import require_harness
from model.errors import MicroStepError
from model.terminal import TemplateArg, TemplateDate, one_line, progress_bar, run

app = typer.Typer(
    name="python -m evals",
    help="Benchmarks of any model, the speed-up beside the score.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("ablate")(ablate_command)


def main() -> None:
    """Run the command line."""
    run(app)


@app.command("list")
def list_benchmarks() -> None:
    """The benchmarks that there are."""
    from evals.benchmark import benchmarks

    table = Table(box=None, pad_edge=False)
    for title in ("benchmark", "what it asks, and what its score is"):
        table.add_column(title)
    for each in benchmarks().values():
        table.add_row(each.name, each.about + (", run in a sandbox" if each.runs_code else ""))
    Console().print(table)


@app.command("run")
def run_command(
    model: Annotated[str, typer.Option(help="Catalog name, hub id or folder, of a micro_step or a plain model.")],
    tasks: Annotated[
        str,
        typer.Option(
            help="Benchmarks with commas between (`python -m evals list`); NAME:N asks for the first N documents."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the samples; one that was begun is gone on with.")],
    confidence: Annotated[
        str, typer.Option(help="Values of tau with commas between, of a micro_step model; above 1 the base alone.")
    ] = "0.8",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents of each.")] = None,
    local: Annotated[Path | None, typer.Option(help="Folder with the data sets' files; without it, the hub.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False,
    system: Annotated[str | None, typer.Option(help="System prompt, with --chat.")] = None,
    multiturn: Annotated[bool, typer.Option("--multiturn", help="Examples as turns, with --chat.")] = False,
    batch_rows: Annotated[int, typer.Option(min=1, help="Answers at once.")] = 8,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Of an answer, instead of the benchmark's own.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Answers to each document, for pass@10 and pass@100.")] = 1,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy; else top-p .95.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0,
    likelihood: Annotated[
        Literal["own", "base"], typer.Option(help="Log-likelihoods in the model's own segments, or by its base alone.")
    ] = "own",
    allow_code_execution: Annotated[
        bool, typer.Option("--allow-code-execution", help="Run the programs that the model writes, in a sandbox.")
    ] = False,
    weak_sandbox: Annotated[
        bool,
        typer.Option("--weak-sandbox", help="Run them under limits alone: the network and your files are in reach."),
    ] = False,
    template_arg: TemplateArg = None,
    template_date: TemplateDate = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Precision of the weights.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of a model that comes without one: catalog name, hub id or folder.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice if not given.")] = None,
) -> None:
    """Run benchmarks (resumable), each sample kept as its batch is done."""
    from evals.benchmark import find_benchmark, read_limits

    limits = read_limits(tasks)
    chosen = [find_benchmark(name) for name in limits]
    own = {name: most for name, most in limits.items() if most is not None}
    taus = _numbers(confidence)
    require_harness()
    import torch

    from evals.report.score_rows import read_folder, report_rows
    from evals.report.tables import show
    from evals.run import EvalOptions, evaluate
    from model.hub.loading import ModelSpec, load
    from model.text.document import read_template_args, template_arguments

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
        template_arguments(read_template_args(template_arg)) or None,
        template_date,
    )
    spec = ModelSpec(model, revision=revision, dtype=dtype, device=device, tokenizer=tokenizer)
    try:
        with progress_bar() as tell:
            evaluate(lambda: load(spec, tell), chosen, taus, out, local, options, tell, own)
    except KeyboardInterrupt:
        print(one_line(f"{out} holds the samples so far; start the same command again to go on"), file=sys.stderr)
        raise
    show(report_rows([read_folder(out)]))
    print(out)


@app.command("report")
def report_command(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER...", help="Folders that `run --out` wrote.")],
    out: Annotated[Path | None, typer.Option(help="Write the table: .md, .csv, .html or .tex, by its ending.")] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for a figure of each benchmark: score against tokens a macro step.")
    ] = None,
    figure_format: Annotated[
        Literal["html", "svg", "png", "pdf"], typer.Option(help="All but html need Chrome on this machine.")
    ] = "svg",
    tasks: Annotated[str | None, typer.Option(help="Only these benchmarks, with commas between.")] = None,
) -> None:
    """The table of some runs, with standard errors, and its figures."""
    from evals.benchmark import find_benchmark
    from evals.report.score_rows import read_folder, report_rows
    from evals.report.tables import TABLES, write_table

    if out is not None and out.suffix not in TABLES:
        raise MicroStepError(f"--out must end in one of {', '.join(TABLES)}, got {out.name}")
    asked = None if tasks is None else [find_benchmark(name) for name in tasks.replace(" ", "").split(",")]
    found = report_rows([read_folder(folder, texts=False) for folder in folders])
    found = [row for row in found if asked is None or row.benchmark in asked]
    if not found:
        raise MicroStepError(f"{' and '.join(map(str, folders))}: there is no sample of {tasks}")
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


@app.command("samples")
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


def _numbers(given: str) -> list[float]:
    try:
        found = list(dict.fromkeys(float(part) for part in given.split(",")))
    except ValueError:
        found = []
    if not found or any(not 0 <= tau < float("inf") for tau in found):
        raise MicroStepError(f"--confidence takes numbers from 0 on with commas between, got {given!r}")
    return found
