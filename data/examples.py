"""Examples as one Parquet file, in the order in which they are scored and trained on. There whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data.example import Example
from model.atomic_files import atomic_write
from model.errors import ExportError, TextError
from model.text.document import Message

TABLE = "examples.parquet"
_ROWS = 4096  # of a row group
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
    """Write the file; its column `messages` reads as a corpus of conversations and plain texts.

    Raises:
        ExportError: it cannot be written; what was there before stays.
    """
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, _SCHEMA, compression="zstd") as writer:
        for at in range(0, max(1, len(examples)), _ROWS):
            rows = [_row(each) for each in examples[at : at + _ROWS]]
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
    with writing_to(folder):
        atomic_write(folder / TABLE, bytes(buffer.getvalue().to_pybytes()))
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
    except (pa.ArrowException, OSError, TypeError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise TextError(f"{file} is damaged ({reason}); make it again") from None


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Make a folder for files that are put there; what could not be finished is removed, a new folder included.

    Raises:
        ExportError: it cannot be made or written.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (OSError, ExportError) as error:
        reason = error if isinstance(error, OSError) else error.__cause__ or error
        for part in folder.glob("*.part"):
            part.unlink(missing_ok=True)
        if new and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        raise ExportError(
            f"{folder} cannot be written ({getattr(reason, 'strerror', None) or reason}); make room, or give another"
        ) from None


def _row(example: Example) -> dict[str, Any]:
    return {
        "source": example.source,
        "number": example.number,
        "messages": [{"role": message.role, "content": message.content} for message in example.messages],
        "ended": example.ended,
        "held_out": example.held_out,
        "repeat": example.repeat,
    }
