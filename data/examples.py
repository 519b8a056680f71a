"""Training examples, and their Parquet file in the order in which they are scored and trained on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.atomic_files import atomic_write
from model.errors import ExportError, TextError, first_line
from model.reading.declared_sizes import rows_at_once
from model.text.document import PLAIN, Message

TABLE = "examples.parquet"
_ROW_GROUP = 4096
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


@dataclass(frozen=True)
class Example:
    """A conversation whose last turn is learned, a prompt that has no answer yet, or a plain text."""

    source: str
    number: int  # number of the record, or the piece, in its source
    messages: tuple[Message, ...]
    ended: bool = True  # False if the last turn was truncated, so its end must not be learned
    held_out: bool = False
    repeat: int = 1  # number of times that it occurs in an epoch

    @property
    def plain(self) -> bool:
        """True if it is a text without roles."""
        return self.messages[0].role == PLAIN

    @property
    def turns(self) -> list[dict[str, str]]:
        """The messages as a file holds them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]

    @property
    def response(self) -> str:
        """The text, or the last turn if it is the assistant's."""
        last = self.messages[-1]
        return last.content if last.role in (PLAIN, "assistant") else ""

    @property
    def prompt(self) -> str:
        before = self.messages if not self.response else self.messages[:-1]
        return "\n".join(message.content for message in before)


def write_examples(folder: Path, examples: Sequence[Example]) -> Path:
    """Write the file; its column `messages` reads as a corpus of conversations and plain texts."""
    buffer = pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, _SCHEMA, compression="zstd") as writer:
        for begin in range(0, max(1, len(examples)), _ROW_GROUP):
            rows = [_row(example) for example in examples[begin : begin + _ROW_GROUP]]
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
    with writing_to(folder):
        atomic_write(folder / TABLE, bytes(buffer.getvalue().to_pybytes()))
    return folder / TABLE


def read_examples(folder: Path) -> Iterator[Example]:
    """Yield the examples of a folder, in order."""
    file = folder / TABLE
    if not file.is_file():
        raise TextError(f"{folder} holds no {TABLE}; `micro-step data clean` makes it")
    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(rows_at_once(opened, str(file), 1024)):
                for row in batch.to_pylist():
                    turns = tuple(Message(turn["role"], turn["content"]) for turn in row.pop("messages"))
                    yield Example(messages=turns, **row)
    except (pa.ArrowException, OSError, TypeError, KeyError) as error:
        raise TextError(f"{file} is damaged ({first_line(error)}); run `micro-step data clean` again") from None


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Create a folder for files to be written; after an error, unfinished files and a new folder are removed."""
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
    return {**vars(example), "messages": example.turns}
