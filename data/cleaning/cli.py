"""`micro-step data sources`, `mixes` and `clean`: what can be trained on, and what cleaning makes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.command_options import Local
from model.terminal import one_line, progress_bar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from data.cleaning.report import CleaningReport


def sources_command() -> None:
    """List the sources that a mix can name, with their licences."""
    from data.sources.registry import sources

    table = _table("name", "title", "licence", "hub", "known from", "use")
    for name, each in sources().items():
        use = "evaluation only" if each.evaluate_only else ""
        where = f"{each.hub or '-'}{' (terms)' if each.gated else ''}"
        table.add_row(name, each.title, each.licence, where, each.checked, use)
    _console().print(table)
    print("\nknown from: how columns and licence were found: the hub's card, public code, a file of it, our own.")


def mixes_command() -> None:
    """List the mixes that come with the project."""
    from data.mixes import names, read_mix

    table = _table("name", "about", "sources")
    for name in names():
        mix = read_mix(name)
        uses = ", ".join(use.name + (f" x{use.repeat}" if use.repeat > 1 else "") for use in mix.sources)
        table.add_row(name, mix.about, uses)
    _console().print(table)


def clean_command(
    mix: Annotated[str, typer.Argument(help="Name of a mix, or a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder for examples.parquet and report.json.")],
    local: Local = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Keep so many examples of the shuffled mix.")] = None,
) -> None:
    """Clean a mix, and say what each rule did."""
    from data.mixes import read_mix

    chosen = read_mix(mix)
    from data.cleaning.clean import clean  # pyarrow: a wrong mix is told before it is there

    with progress_bar() as tell:
        interval = 0.2 if sys.stderr.isatty() else 10.0  # a bar, or lines of a log
        report = clean(chosen, local, out, limit, tell, interval)
    _show(report)
    print(out)


def _show(report: CleaningReport) -> None:
    from rich.text import Text

    rules = list(dict.fromkeys(rule for each in report.sources for rule in (*each.mended, *each.dropped)))
    table = _table("source", "licence", "read", *rules, "kept", "held out", "repeat")
    for each in report.sources:
        did = []
        for rule in rules:
            parts = [f"-{each.dropped[rule]:,}"] if rule in each.dropped else []
            parts += [f"{each.mended[rule]:,} changed"] if rule in each.mended else []
            did.append(", ".join(parts))
        counts = f"{each.kept:,}", f"{each.held_out:,}", str(each.repeat)
        table.add_row(Text(one_line(each.source)), Text(one_line(each.licence)), f"{each.read:,}", *did, *counts)
    if len(report.sources) > 1:
        table.add_row("all", "", f"{report.read:,}", *[""] * len(rules), f"{report.kept:,}", f"{report.held_out:,}", "")
    _console().print(table)
    if blocks := sum(each.unlabelled_code for each in report.sources):
        print(f"{blocks:,} blocks of code had no language and were let through", file=sys.stderr)
    for name, count in report.unguarded.items():
        if count:
            print(f"{name}: {count:,} questions are too short to be kept out", file=sys.stderr)


def _table(*columns: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in columns:
        words = column in ("name", "title", "licence", "hub", "known from", "use", "about", "sources", "source")
        table.add_column(column, justify="left" if words else "right", overflow="fold")
    return table


def _console() -> Console:
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=200)
