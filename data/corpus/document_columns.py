"""The columns that the documents of a corpus have beside their text, as one Parquet file for each shard of a store.

A row is a document that starts in the shard. A cell is the JSON text of a value, so that a column may hold values of
any kind; it is null where a document has no such column, or null in it. Only the columns that are asked for are read.
"""

import datetime
import decimal
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model.reading.declared_sizes import rows_at_once
from model.reading.json_text import parse_json

Columns = dict[str, list[Any]]  # by name: [documents] values; None: missing


def columns_to_parquet(documents: Sequence[Mapping[str, object]]) -> bytes | None:
    """Pack the columns of documents; None if they have none. A value that JSON cannot hold is left out."""
    names = dict.fromkeys(name for document in documents for name in document)
    if not names:
        return None
    table = {name: pa.array([json_cell(document.get(name)) for document in documents], pa.string()) for name in names}
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(table), buffer, compression="zstd")
    return bytes(buffer.getvalue().to_pybytes())


def columns_from_parquet(content: bytes, names: Sequence[str] | None = None) -> Columns:
    """The columns of these names that the file has; None: all."""
    with pq.ParquetFile(pa.BufferReader(content)) as file:
        held = file.schema_arrow.names
    with pq.ParquetFile(pa.BufferReader(content), read_dictionary=held) as file:  # no cell is written out twice
        rows_at_once(file, "a file of columns", 1)
        table = file.read(None if names is None else [name for name in names if name in held])
        columns = zip(table.column_names, table.columns, strict=True)
        return {name: _values(column) for name, column in columns}


def _values(column: Any) -> list[Any]:
    """Each different cell is parsed once."""
    coded = column.combine_chunks().dictionary_encode()
    parsed = np.empty(len(coded.dictionary) + 1, dtype=object)
    parsed[:-1] = [parse_json(cell) for cell in coded.dictionary.to_pylist()] or None
    found: list[Any] = parsed[coded.indices.fill_null(len(parsed) - 1).to_numpy()].tolist()
    return found


def json_cell(value: object) -> str | None:
    """The JSON text of a value; None for null, and for what JSON cannot hold."""
    if value is None:
        return None
    try:
        return json.dumps(value, default=_text)
    except (TypeError, ValueError):  # an image, or what contains itself
        return None


def _text(value: object) -> str:
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return str(value)
    raise TypeError
