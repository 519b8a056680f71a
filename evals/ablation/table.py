"""The result of a grid: means over seeds with intervals, and differences from the first variant. Markdown and CSV.

An interval is over seeds: every run answers the same documents, so the variation between documents is not in it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from analysis.export import table_bytes
from analysis.intervals import student
from model.atomic_files import atomic_write, check_writable
from model.errors import MicroStepError
from model.tables import markdown_table

SUFFIXES = (".md", ".csv")
_MAX_COLUMNS = 12  # with more measures, the variants become the columns


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and half of its 95% interval by Student's t; NaN for one seed, or if all are equal."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isnan(self.half) else f"{self.mean:.3f} ± {self.half:.3f}"


def interval(values: Sequence[float]) -> Interval:
    """Return the interval of values, one per seed."""
    n = len(values)
    mean = sum(values) / n
    spread = 0.0 if n < 2 else math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    if spread <= 1e-12 * abs(mean):  # one seed, or all equal: there is no interval
        return Interval(mean, math.nan)
    return Interval(mean, float(student(n - 1)) * spread / math.sqrt(n))


@dataclass(frozen=True)
class AblationRow:
    variant: str
    values: Mapping[str, tuple[float, ...]]  # for each measure that every seed has, one value per seed
    differences: Mapping[str, tuple[float, ...]]
    """Differences from the first variant, seed by seed, of the measures that both have."""


def rows_of(measures: Mapping[str, Sequence[Mapping[str, float]]]) -> list[AblationRow]:
    """Return rows from the measures of all runs of each variant, with the seeds in one order."""
    values = {variant: _shared(seeds) for variant, seeds in measures.items()}
    first = next(iter(values.values()))
    return [
        AblationRow(
            variant, row_values, {name: _minus(row_values[name], first[name]) for name in row_values if name in first}
        )
        for variant, row_values in values.items()
    ]


def _shared(seeds: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, ...]]:
    return {name: tuple(each[name] for each in seeds) for name in seeds[0] if all(name in each for each in seeds)}


def _minus(a: Sequence[float], b: Sequence[float]) -> tuple[float, ...]:
    return tuple(x - y for x, y in zip(a, b, strict=True))


def measures(rows: Sequence[AblationRow]) -> list[str]:
    """Return the names of all measures, in the order of their first appearance."""
    return list(dict.fromkeys(name for row in rows for name in row.values))


def as_markdown(title: str, rows: Sequence[AblationRow]) -> str:
    """Return a table of measures, and one of differences from the first variant."""
    names = measures(rows)
    parts = [_table(title, names, {row.variant: row.values for row in rows})]
    if rows[1:]:
        parts += ["", f"Differences from {rows[0].variant}, seed by seed:", ""]
        parts.append(_table(title, names, {row.variant: row.differences for row in rows[1:]}))
    return "\n".join(parts)


def _table(title: str, names: Sequence[str], values_of: Mapping[str, Mapping[str, tuple[float, ...]]]) -> str:
    def cell(variant: str, name: str) -> str:
        return str(interval(values_of[variant][name])) if name in values_of[variant] else "-"

    if len(names) > _MAX_COLUMNS:
        head, lines = list(values_of), [[name, *(cell(variant, name) for variant in values_of)] for name in names]
    else:
        head, lines = list(names), [[variant, *(cell(variant, name) for name in names)] for variant in values_of]
    return "\n".join(markdown_table([title, *head], lines))


def as_csv(seeds: Sequence[int], rows: Sequence[AblationRow]) -> str:
    """Return one line per measure of each variant, unrounded; with one seed, interval fields are empty."""
    head = ["variant", "measure", "mean", "half_95", "difference", "difference_half_95"]
    lines: list[list[object]] = []
    for row in rows:
        for name, values in row.values.items():
            differences = row.differences.get(name) if row is not rows[0] else None
            lines.append([row.variant, name, *_numbers(values), *_numbers(differences), *values])
    table = pd.DataFrame(lines, columns=[*head, *(f"seed_{seed}" for seed in seeds)])
    return table_bytes(table, "csv").decode("utf-8")


def _numbers(values: Sequence[float] | None) -> tuple[float, float]:
    if values is None:
        return math.nan, math.nan
    result = interval(values)
    return result.mean, result.half


def check_table(path: Path) -> None:
    """Check that a table can be written there, before anything is run."""
    if path.suffix not in SUFFIXES:
        raise MicroStepError(f"{path} cannot be written: give a {' or '.join(SUFFIXES)} file")
    check_writable(path)


def write_table(title: str, seeds: Sequence[int], rows: Sequence[AblationRow], path: Path) -> None:
    """Write the table in the format of the file's suffix."""
    text = as_csv(seeds, rows) if path.suffix == ".csv" else as_markdown(title, rows) + "\n"
    atomic_write(path, text.encode())
