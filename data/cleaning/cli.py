"""`micro-step data sources`, `mixes` and `clean`: what can be trained on, and what cleaning makes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.command_options import Local
from model.tables import print_table
from model.terminal import one_line, progress_bar

if TYPE_CHECKING:
    from data.cleaning.report import CleaningReport


def sources_command() -> None:
    """List the sources that a mix can name, with their licences."""
    from data.sources.registry import sources

    rows = []
    for name, each in sources().items():
        use = "evaluation only" if each.evaluate_only else ""
        where = f"{each.hub or '-'}{' (terms)' if each.gated else ''}"
        rows.append((name, each.title, each.licence, where, each.checked, use))
    print_table(("name", "title", "licence", "hub", "known from", "use"), rows)
    print("\nknown from: how columns and licence were found: the hub's card, public code, a file of it, our own.")


def mixes_command() -> None:
    """List the mixes that come with the project."""
    from data.mixes import names, read_mix

    rows = []
    for name in names():
        mix = read_mix(name)
        uses = ", ".join(use.name + (f" x{use.repeat}" if use.repeat > 1 else "") for use in mix.sources)
        rows.append((name, mix.about, uses))
    print_table(("name", "about", "sources"), rows)


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
        report = clean(chosen, local, out, limit, tell)
    _show(report)
    print(out)


def _show(report: CleaningReport) -> None:
    rules = list(dict.fromkeys(rule for each in report.sources for rule in (*each.mended, *each.dropped)))
    rows = []
    for each in report.sources:
        did = []
        for rule in rules:
            parts = [f"-{each.dropped[rule]:,}"] if rule in each.dropped else []
            parts += [f"{each.mended[rule]:,} changed"] if rule in each.mended else []
            did.append(", ".join(parts))
        counts = f"{each.kept:,}", f"{each.held_out:,}", str(each.repeat)
        rows.append((one_line(each.source), one_line(each.licence), f"{each.read:,}", *did, *counts))
    if len(report.sources) > 1:
        rows.append(("all", "", f"{report.read:,}", *[""] * len(rules), f"{report.kept:,}", f"{report.held_out:,}", ""))
    print_table(("source", "licence", "read", *rules, "kept", "held out", "repeat"), rows, 2)
    if blocks := sum(each.unlabelled_code for each in report.sources):
        print(f"{blocks:,} blocks of code had no language and were let through", file=sys.stderr)
    for name, count in report.unguarded.items():
        if count:
            print(f"{name}: {count:,} questions are too short to be kept out", file=sys.stderr)
