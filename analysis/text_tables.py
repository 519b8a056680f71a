"""Prints tables to a terminal. Text from tokens is shown literally, without control characters or markup."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analysis.score_registry import significant


def show_table(table: pd.DataFrame, caption: str, turned: bool = False) -> None:
    """Print a table to standard output. `turned` prints each column as a row, for few rows with many columns."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    drawn = Table(box=None, pad_edge=False)
    if turned:
        drawn.add_column("")
        for _ in range(len(table)):
            drawn.add_column("", justify="right")
        for name in table.columns:
            drawn.add_row(name, *(_cell(value) for value in table[name]))
    else:
        for name, kind in table.dtypes.items():
            drawn.add_column(str(name), justify="right" if pd.api.types.is_numeric_dtype(kind) else "left")
        for row in table.itertuples(index=False):
            drawn.add_row(*(_cell(value) for value in row))
    console.print(drawn)
    console.print(Text(caption))


def _cell(value: object) -> Text:
    if isinstance(value, float):
        return Text("" if value != value else significant(value))
    if value is pd.NA:
        return Text("")
    marked = str(value).replace(" ", "·").replace("\n", "¶").replace("\t", "→")
    return Text("".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in marked))
