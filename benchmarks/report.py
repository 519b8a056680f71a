"""Reports of benchmarks: plain values, shown as facts and tables at a terminal, and written as JSON.

A report is a dictionary. Its lists of rows are tables, whose columns are named as the keys of the rows; all else are
facts. What is measured is a number, a `timing.spread`, a `ratio` with its interval, or None.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from analysis.score_registry import significant
from model.atomic_files import atomic_write
from model.tables import console, print_table


def check_file(out: Path | None, suffix: str) -> None:
    """Raise ExportError, before heavy work, if nothing can be written under this name."""
    if out is not None:
        from analysis.export import check_out

        check_out(out, (suffix,))


def write(report: Any, out: Path | None) -> None:
    """Write a text, or else values as JSON, whole or not at all, and print its name; without a file do nothing."""
    if out is None:
        return
    text = report if isinstance(report, str) else json.dumps(report, indent=2) + "\n"
    atomic_write(out, text.encode())
    print(out)


def show(report: Mapping[str, Any], leave_out: Sequence[str] = ()) -> None:
    """Print a report: its facts, then its tables without some of the columns, each in parts that fit the width."""
    given = {key: value for key, value in report.items() if value not in (None, [])}
    with_rows = [key for key, value in given.items() if isinstance(value, list) and isinstance(value[0], dict)]
    facts = [(_title(key), cell(value, key)) for key, value in given.items() if key not in with_rows]
    print_table(("", ""), facts)
    for rows in (given[key] for key in with_rows):
        print()
        if "rows" in rows[0]:  # reports within a report
            for report_within in rows:
                show(report_within, leave_out)
        else:
            _show_rows([{key: value for key, value in row.items() if key not in leave_out} for row in rows])


def _show_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print tables that fit the width. Each begins with the first column, which says what a row is of."""
    columns = {key: [_title(key), *(cell(row[key], key) for row in rows)] for key in rows[0]}
    first, *others = (key for key in columns if any(row[key] is not None for row in rows))
    parts = [[first]]
    for key in others:
        needed = sum(max(map(len, columns[held])) + 2 for held in (*parts[-1], key))
        if needed > console().width and len(parts[-1]) > 1:
            parts.append([first])
        parts[-1].append(key)
    for part in parts:
        titles, *lines = zip(*(columns[key] for key in part), strict=True)
        print_table(titles, lines, 1)


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
