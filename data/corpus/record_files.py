"""The rows of a table in a file: CSV, TSV, JSON, JSON lines or Parquet, read in pieces, each row a record by column.

Every cell of CSV and TSV is a text, exactly as it stands in the file. A row with too few or too many cells is refused,
since its cells cannot be told apart. This module knows nothing about texts to score.
"""

import csv
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any, TextIO

from model.errors import TextError
from model.reading.declared_sizes import rows_at_once
from model.reading.json_text import parse_json
from model.storage.places import Place, opened

TABLE_SUFFIXES = (
    *(f"{kind}{packed}" for kind in (".csv", ".tsv", ".json", ".jsonl") for packed in ("", ".gz")),
    ".parquet",
)
_LONGEST_CELL = 20_000_000  # characters; a quote that is never closed makes a cell of the rest of the file
_PARQUET_ROWS = 256


def text_records(lines: TextIO, name: str, kind: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file that is open as text with `newline=""`.

    Args:
        lines: the file.
        name: of the file, for messages.
        kind: its name in small letters without .gz.

    Raises:
        TextError: it is not what its name says.
    """
    if kind.endswith((".csv", ".tsv")):
        return _separated(lines, name, "\t" if kind.endswith(".tsv") else ",")
    return _json_list(lines, name) if kind.endswith(".json") else _json_lines(lines, name)


def parquet_records(
    path: Place, name: str, start: int = 0, only: Collection[str] | None = None
) -> Iterator[tuple[dict[str, Any], float]]:
    """Yield the rows of a Parquet file without its columns of bytes, and the share that has been read.

    Args:
        path: of the file.
        name: of the file, for messages.
        start: the first row to yield. Row groups that end before it are not read.
        only: the columns to read; None, or if one of them is not there: all.

    Raises:
        TextError: it is not readable.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with opened(path) as content, pq.ParquetFile(content) as file:
            names = [field.name for field in file.schema_arrow if "binary" not in str(field.type)]
            if only is not None and set(only) <= set(names):
                names = [column for column in names if column in only]
            done, total = 0, file.metadata.num_rows
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            first = 0
            while first < len(groups) and done + groups[first] <= start:
                done, first = done + groups[first], first + 1
            rows = rows_at_once(file, name, _PARQUET_ROWS, names)
            for batch in file.iter_batches(rows, list(range(first, len(groups))), columns=names):
                skipped = min(len(batch), max(0, start - done))
                done += skipped
                for record in batch.slice(skipped).to_pylist():
                    done += 1
                    yield record, done / total
    except pa.ArrowException as error:
        raise TextError(f"{name} is not a readable Parquet file ({error}); fetch it again") from None


def _separated(lines: TextIO, name: str, separator: str) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(_LONGEST_CELL)
    rows = csv.reader(lines, delimiter=separator, strict=True)
    try:
        header = next((row for row in rows if row), [])
        if twice := sorted({column for column in header if header.count(column) > 1}):
            raise TextError(f"{name} has two columns named {twice[0]!r}; rename one")
        for row in rows:
            if len(row) != len(header) and row:
                raise TextError(
                    f"{name}, line {rows.line_num}: {len(row)} cells, but the first line names {len(header)} columns;"
                    " quote a cell that holds a separator or a line break"
                )
            if row:
                yield dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise TextError(f"{name}, line {rows.line_num} cannot be read ({error}); check its quotes") from None


def _json_list(lines: TextIO, name: str) -> Iterator[dict[str, Any]]:
    """A list of objects; or JSON lines, which often have this ending, too."""
    first = next((line for line in lines if line.strip()), "")
    if not first.lstrip().startswith("["):
        yield from _json_lines(chain([first], lines), name)
        return
    try:
        records = parse_json(first + lines.read())
    except (ValueError, RecursionError) as error:
        raise TextError(f"{name} is not JSON ({error}); expected a list of objects") from None
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict):
            raise TextError(f"{name}, item {number} is not a JSON object; expected a list of objects")
        yield record


def _json_lines(lines: Iterator[str], name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except (ValueError, RecursionError) as error:
            raise TextError(f"{name}, line {number} is not JSON ({error}); expected one object per line") from None
        if not isinstance(record, dict):
            raise TextError(f"{name}, line {number} is not a JSON object; expected one object per line")
        yield record
