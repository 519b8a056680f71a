"""A table that is made and written piece by piece, so that memory does not grow with its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from analysis.export import table_file
from analysis.score_registry import Unit, significant
from model.atomic_files import need_disk

PIECE = 1 << 20  # characters of the texts that are scored together, and of the columns that are written together
_SMALLER = (
    "each of its rows repeats the columns of its text: write .parquet, or use `corpus score` and `corpus table`, whose"
    " table leaves the text itself out"
)


@dataclass(frozen=True)
class MadeTable:
    """What is left to say once a table was made."""

    table: pd.DataFrame | None  # None: it was written to a file
    summary: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class TablePieces:
    """A table by word or by token that is still to be made."""

    make: Callable[[], Iterator[pd.DataFrame]]  # the rows in order; each piece has the same columns
    texts: int
    models: Sequence[str]  # one name or two
    by: str
    unit: Unit
    notes: Callable[[], tuple[str, ...]]  # what a reader must know, when all pieces were made
    size: int = 0  # bytes that it takes as CSV at least

    def made(self, out: Path | None) -> MadeTable:
        """Make the table: write it to a file, whose suffix chooses the format, or hold it in memory.

        Raises:
            ExportError: it cannot be written. A file that was there before stays.
            TooLarge: the disk is too small for it.
        """
        if out is None:
            tables = list(self.make())
            return MadeTable(pd.concat(tables, ignore_index=True), self._described(tables), self.notes())
        if out.suffix.lower() != ".parquet":  # which stores what is repeated once
            need_disk(out.parent, self.size, "the table", _SMALLER)
        with table_file(out) as write:

            def written() -> Iterator[pd.DataFrame]:
                for table in self.make():
                    write(table)
                    yield table

            return MadeTable(None, self._described(written()), self.notes())

    def _described(self, tables: Iterable[pd.DataFrame]) -> str:
        return described(tables, self.texts, self.models, self.by, self.unit)


def described(tables: Iterable[pd.DataFrame], texts: int, models: Sequence[str], by: str, unit: Unit) -> str:
    """A table in one sentence: its size, and the mean surprisal of each model."""
    ends = ("_a", "_b") if len(models) == 2 else ("",)
    rows, known, sums = 0, np.zeros(len(ends)), np.zeros(len(ends))
    for table in tables:
        rows += len(table)
        own = table[[_ours(f"surprisal{end}", table) for end in ends]].to_numpy(dtype=np.float64)
        known += (~np.isnan(own)).sum(0)
        sums += np.nansum(own, axis=0)
    means = [
        f"{name} {significant(total / count) if count else 'unknown'}"
        for name, total, count in zip(models, sums.tolist(), known.tolist(), strict=True)
    ]
    return f"{texts:,} text{'s' * (texts != 1)}, {rows:,} {by}s; mean surprisal a {by}: {', '.join(means)} {unit}" + (
        "; entropy_sum is the sum over a word's tokens" if by == "word" else ""
    )


def _ours(name: str, table: pd.DataFrame) -> str:
    """What our column is called where the table has one of the same name."""
    while f"scored_{name}" in table:
        name = f"scored_{name}"
    return name
