"""Tables of texts: on the terminal, and in Markdown. What stands in a cell is never read as markup."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 200  # characters of a file or a pipe, which has no width of its own: nothing is cut there


def console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDTH)


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int | None = None) -> None:
    """Print a table whose first columns, or all, are texts; the others are numbers, which stand on the right."""
    table = Table(box=None, pad_edge=False, show_header=any(titles))
    for i, title in enumerate(titles):
        texts = text_columns is None or i < text_columns
        table.add_column(Text(title), justify="left" if texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int | None = None) -> list[str]:
    """The lines of a table; see `print_table`. Cells are Markdown themselves."""
    rule = ["---" if text_columns is None or i < text_columns else "---:" for i in range(len(titles))]
    return [f"| {' | '.join(cells)} |" for cells in (titles, rule, *rows)]
