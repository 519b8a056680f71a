"""Reports of benchmarks: plain values, shown as facts and tables at a terminal, and written as JSON.

A report is a dictionary. Its lists of rows are tables, whose columns are named as the keys of the rows; all else are
facts. What is measured is a number, a `timing.spread`, a `ratio` with its interval, or None.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis.score_registry import significant
from model.atomic_files import atomic_write, check_writable
from model.errors import ExportError

WIDTH = 160  # characters, where no terminal says how wide it is


def check_out(out: Path | None, suffix: str = ".json") -> None:
    """Raise ExportError, before heavy work, if nothing can be written under this name."""
    if out is not None:
        if out.suffix.lower() != suffix:
            raise ExportError(f"{out} cannot be written: give a {suffix} file")
        check_writable(out)


def write(report: Any, out: Path | None) -> None:
    """Write a text, or else values as JSON, whole or not at all, and print the file's name; without a file do nothing.

    Raises:
        ExportError: it cannot be written there.
    """
    if out is None:
        return
    text = report if isinstance(report, str) else json.dumps(report, indent=2) + "\n"
    atomic_write(out, text.encode())
    print(out)


def show(report: Mapping[str, Any], leave_out: Sequence[str] = ()) -> None:
    """Print a report: its facts, then its tables without some of the columns, each in parts that fit the width."""
    console = Console() if os.isatty(1) else Console(width=WIDTH)
    given = {key: value for key, value in report.items() if value not in (None, [])}
    with_rows = [key for key, value in given.items() if isinstance(value, list) and isinstance(value[0], dict)]
    facts = {key: value for key, value in given.items() if key not in with_rows}
    console.print("\n" + cell(facts), markup=False, highlight=False)
    for each in (given[key] for key in with_rows):
        if "rows" in each[0]:  # reports within a report
            for report_within in each:
                show(report_within, leave_out)
            continue
        shown = [{key: value for key, value in row.items() if key not in leave_out} for row in each]
        for part in tables(shown, console.width):
            console.print(part)


def tables(rows: Sequence[Mapping[str, Any]], width: int = WIDTH) -> list[Table]:
    """Rows as tables of at most this width. Each begins with the first column, which says what a row is of."""
    columns = {key: [_title(key), *(cell(row[key], key) for row in rows)] for key in rows[0]}
    first, *others = (key for key in columns if any(row[key] is not None for row in rows))
    parts = [[first]]
    for key in others:
        needed = sum(max(map(len, columns[each])) + 2 for each in (*parts[-1], key))
        if needed > width and len(parts[-1]) > 1:
            parts.append([first])
        parts[-1].append(key)
    return [_table([columns[key] for key in part]) for part in parts]


def _table(columns: Sequence[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title, *cells in columns:
        table.add_column(title, justify="left" if any(text[:1].isalpha() for text in cells) else "right")
    for line in zip(*(cells[1:] for cells in columns), strict=True):
        table.add_row(*line)
    return table


def cell(value: Any, key: str = "") -> str:
    """A value in words: "1.5 (1.2..1.8)" for a ratio with its interval, or for a median with the smallest and largest.

    Args:
        value: a text, a number, None, or a list or dictionary of these.
        key: its name; what ends with "_bytes" is shown in megabytes.
    """
    if value is None:
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int | float):
        number = value / 1e6 if key.endswith("_bytes") else value
        return f"{number:,.0f}" if isinstance(number, int) or abs(number) >= 1000 else significant(number)
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], float):
        middle, low, high = map(cell, value)
        return f"{middle} ({low}..{high})" if value[1] is not None else f"{middle} (no interval)"
    if isinstance(value, dict) and "median" in value:
        return f"{cell(value['median'])} ({cell(value['min'])}..{cell(value['max'])})"
    if isinstance(value, dict):
        names = {name: key if key.endswith("_bytes") else name for name in value}
        return ", ".join(f"{_title(name)} {cell(each, names[name])}" for name, each in value.items())
    return ", ".join(map(cell, value))


def _title(key: str) -> str:
    return (key.removesuffix("bytes") + "MB" if key.endswith("_bytes") else key).replace("_", " ")
