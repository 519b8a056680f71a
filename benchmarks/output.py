"""What every benchmark's command shares: the check of --out, the JSON file, and tables at a terminal."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from model.errors import ExportError

Out = Annotated[Path | None, typer.Option(help="A .json file to write as well.")]


def check_out(out: Path | None) -> None:
    """Raise ExportError, before heavy work, if nothing can be written under this name."""
    if out is not None and (out.suffix.lower() != ".json" or not out.parent.is_dir()):
        raise ExportError(f"{out} cannot be written: give a .json file in a folder that is there")


def write(report: Any, out: Path | None) -> None:
    """Write a report where one was asked for, whole or not at all, and print its name.

    Raises:
        ExportError: it cannot be written there.
    """
    if out is None:
        return
    part = out.with_name(out.name + ".part")
    try:
        part.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        part.replace(out)
    except OSError as error:
        raise ExportError(f"{out} cannot be written: {error.strerror}") from None
    print(out)


def show(head: str, *tables: Table) -> None:
    """Print a line and tables; wide where no terminal says how wide it is."""
    console = Console() if os.isatty(1) else Console(width=160)
    if head:
        console.print(head, markup=False, highlight=False)
    for table in tables:
        console.print(table)


def columns(first: str, *numbers: str) -> Table:
    """A table of a name and numbers."""
    table = Table(box=None, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for title in numbers:
        table.add_column(title, justify="right", no_wrap=True)
    return table


def spread_cells(spread: dict[str, float] | None, digits: int) -> tuple[str, str]:
    """Median and range of a figure, as two cells; dashes where it was not measured."""
    if not spread:
        return "-", "-"
    return f"{spread['median']:.{digits}f}", f"{spread['min']:.{digits}f}..{spread['max']:.{digits}f}"


def interval_cell(value: Sequence[float | None], digits: int) -> str:
    """A value and the ends of its interval, where there is one, as a cell."""
    mean, low, high = ("" if each is None else f"{each:.{digits}f}" for each in value)
    return f"{mean} ({low}..{high})" if low else f"{mean} (no interval)"


def megabytes(size: int | None) -> str:
    """A number of bytes as a cell."""
    return f"{size / 1e6:,.0f}" if size is not None else "-"
