"""`python -m evals`: run benchmarks, list them, report what they gave. Torch and the harness wait until needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from evals.ablation_cli import ablate_command
from evals.needed import need_harness
from model.errors import MicroStepError
from model.terminal import Tell, one_line, progress_bar, run

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
    tasks: Annotated[str, typer.Option(help="Benchmarks with commas between; `python -m evals list` names them.")],
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
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Precision of the weights.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice if not given.")] = None,
) -> None:
    """Run benchmarks (resumable), each sample kept as its batch is done."""
    from evals.benchmark import find_benchmark

    chosen = [find_benchmark(name) for name in dict.fromkeys(tasks.replace(" ", "").split(","))]
    taus = _numbers(confidence)
    need_harness()
    import torch

    from evals.report import read_folder, report_rows
    from evals.run import EvalOptions, evaluate
    from evals.tables import show
    from model.loading import ModelSpec, load

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
    )
    spec = ModelSpec(model, revision=revision, dtype=dtype, device=device)
    try:
        with progress_bar() as tell:
            say = tell if sys.stderr.isatty() else _lines()
            evaluate(lambda: load(spec, say), chosen, taus, out, local, options, say)
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
) -> None:
    """The table of some runs, with standard errors, and its figures."""
    from evals.report import read_folder, report_rows
    from evals.tables import TABLES, write_table

    if out is not None and out.suffix not in TABLES:
        raise MicroStepError(f"--out must end in one of {', '.join(TABLES)}, got {out.name}")
    found = report_rows([read_folder(folder) for folder in folders])
    if out is not None:
        write_table(found, out)
        print(out)
    if figures is not None:
        from evals.figures import write_figures

        for path in write_figures(found, figures, figure_format):
            print(path)
    if out is None and figures is None:
        from evals.tables import show

        show(found)


def _numbers(given: str) -> list[float]:
    try:
        found = list(dict.fromkeys(float(part) for part in given.split(",")))
    except ValueError:
        found = []
    if not found or any(not 0 <= tau < float("inf") for tau in found):
        raise MicroStepError(f"--confidence takes numbers from 0 on with commas between, got {given!r}")
    return found


def _lines() -> Tell:
    """For a log: every message once."""
    last = ""

    def tell(message: str, fraction: float | None) -> None:
        nonlocal last
        if message != last:
            last = message
            print(one_line(message), file=sys.stderr, flush=True)

    return tell
