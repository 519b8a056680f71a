"""`python -m data`: what can be trained on, cleaned, answered by the base itself, and scored. Torch waits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from data.distill_cli import commands as distill_commands
from data.prepare_cli import commands as prepare_commands
from model.terminal import progress_bar, run

app = typer.Typer(
    name="python -m data",
    help="Training data: sources, mixes, cleaning, self-distillation, preparation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for each in (distill_commands, prepare_commands):
    app.add_typer(each)


def main() -> None:
    """Run the command line."""
    run(app)


@app.command("sources")
def sources_command() -> None:
    """List the sources that a mix can name, with their licences."""
    from data.sources import sources

    table = Table(box=None, pad_edge=False)
    for column in ("name", "title", "licence", "hub", "use"):
        table.add_column(column, overflow="fold")
    for name, each in sources().items():
        where = each.hub.id if each.hub is not None else "-"
        use = "evaluation only" if each.evaluate_only else "" if each.checked else "columns not checked"
        table.add_row(name, each.title, each.licence, where, use)
    Console().print(table)


@app.command("mixes")
def mixes_command() -> None:
    """List the mixes that come with the project."""
    from data.mixes import names, read_mix

    for name in names():
        uses = ", ".join(use.name + (f" x{use.repeat}" if use.repeat > 1 else "") for use in read_mix(name).sources)
        print(f"{name}: {uses}")


@app.command("clean")
def clean_command(
    mix: Annotated[str, typer.Argument(help="Name of a mix, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder for examples.parquet and report.json.")],
    local: Annotated[Path | None, typer.Option(help="Folder with the sources' files; without it, the hub.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Keep so many examples of the shuffled mix.")] = None,
) -> None:
    """Clean a mix, and say what each rule did."""
    from data.cleaning import clean
    from data.mixes import read_mix

    chosen = read_mix(mix)
    with progress_bar() as tell:
        report = clean(chosen, local, out, limit, tell)
    table = Table(box=None, pad_edge=False)
    table.add_column("source")
    for column in ("read", "kept", "held out", "repeat"):
        table.add_column(column, justify="right")
    table.add_column("dropped and mended", overflow="fold")
    for each in report.sources:
        did = [f"{n:,} dropped by {rule}" for rule, n in each.dropped.items()]
        did += [f"{n:,} mended by {rule}" for rule, n in each.mended.items()]
        counts = (f"{n:,}" for n in (each.read, each.kept, each.held_out, each.repeat))
        table.add_row(each.source, *counts, "; ".join(did))
    Console().print(table)
    print(out)
