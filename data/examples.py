"""Examples as one Parquet file, in the order in which they are scored and trained on. There whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data.corpus.store_write import put
from data.example import Example
from model.document import Message
from model.errors import TextError

TABLE = "examples.parquet"
_TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
_SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("number", pa.int64()),
        ("messages", pa.list_(_TURN)),
        ("ended", pa.bool_()),
        ("held_out", pa.bool_()),
        ("repeat", pa.int64()),
    ]
)


def write_examples(folder: Path, examples: Sequence[Example]) -> Path:
    """Write the file; its column `messages` reads as a corpus of conversations.

    Raises:
        ExportError: it cannot be written.
    """
    rows = [
        {
            "source": each.source,
            "number": each.number,
            "messages": [{"role": message.role, "content": message.content} for message in each.messages],
            "ended": each.ended,
            "held_out": each.held_out,
            "repeat": each.repeat,
        }
        for each in examples
    ]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), buffer, compression="zstd", row_group_size=4096)
    put(folder / TABLE, bytes(buffer.getvalue().to_pybytes()))
    return folder / TABLE


def read_examples(folder: Path) -> Iterator[Example]:
    """The examples of a folder, in order.

    Raises:
        TextError: it holds none, or the file is damaged.
    """
    file = folder / TABLE
    if not file.is_file():
        raise TextError(f"{folder} holds no {TABLE}; `python -m data clean` makes it")
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(1024):
                for row in batch.to_pylist():
                    turns = tuple(Message(turn["role"], turn["content"]) for turn in row.pop("messages"))
                    yield Example(messages=turns, **row)
    except (pa.ArrowException, TypeError, KeyError) as error:
        raise TextError(f"{file} is damaged ({error}); clean the mix again") from None
