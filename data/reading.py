"""Records of a source as examples, in a fixed order: from the hub, from local files, or made from templates.

Knows formats and columns; nothing about tokens, mixes or cleaning.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data.example import Example
from data.sources import Columns, Source
from data.templates import prompts
from model.document import PLAIN, ROLES, Message
from model.errors import MicroStepError, TextError

_ROLE = {"human": "user", "gpt": "assistant", "from": "role"}
_SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")


def read(name: str, source: Source, local: Path | None = None) -> Iterator[Example]:
    """The examples of a source.

    Args:
        name: of the source.
        source: what it is.
        local: the folder under which its files are; None: the hub.

    Raises:
        TextError: it cannot be had, a file is damaged, or a named column is not there.
    """
    if source.templates is not None:
        for number, prompt in enumerate(prompts(Path(__file__).parent / source.templates)):
            yield Example(name, number, (Message("user", prompt),))
        return
    columns = source.columns
    if local is not None and source.local is not None:
        columns = source.local.columns or columns
        records = _local(name, source, local)
    elif local is not None and source.hub is None:
        raise TextError(f"source {name!r} names no local files and is on no hub")
    else:
        records = _hub(name, source)
    yield from examples_of(name, records, columns, source)


def examples_of(
    name: str, records: Iterable[Mapping[str, Any]], columns: Columns, source: Source | None = None
) -> Iterator[Example]:
    """Records as examples, those that the source keeps.

    Raises:
        TextError: a record has not the columns, or something else than text in them.
    """
    source = source or Source(title=name, licence="unknown", columns=columns)
    number = 0
    for record in records:
        if not all(keep.holds(_at(record, keep.column)) for keep in source.keep):
            continue
        for messages in _examples(name, source, columns, record):
            yield Example(name, number, messages)
            number += 1


def _examples(
    name: str, source: Source, columns: Columns, record: Mapping[str, Any]
) -> Iterator[tuple[Message, ...]]:
    """A record as conversations or texts; one without content gives none."""
    missing = [column for column in columns.names if _at(record, column) is _NOTHING]
    if missing:
        raise TextError(
            f"source {name!r}: a record has no column {missing[0]!r}, only {', '.join(map(str, record)) or 'none'};"
            " check that this is the data set that the source names"
        )
    if columns.text is not None:
        text = _cut_out(source, _text(name, record, columns.text))
        yield from ((Message(PLAIN, piece),) for piece in pieces(text, source.piece_characters))
        return
    if columns.messages is not None:
        messages = _conversation(name, _at(record, columns.messages))
    else:
        parts = [_text(name, record, column).strip() for column in columns.prompt]
        prompt = "\n\n".join(part for part in parts if part)
        if source.prompt_pattern is not None and (found := re.search(source.prompt_pattern, prompt)):
            prompt = found.group(1).strip()
        system = _text(name, record, columns.system).strip() if columns.system is not None else ""
        messages = [*([Message("system", system)] if system else []), *([Message("user", prompt)] if prompt else [])]
        if columns.response is not None:
            answer = _cut_out(source, _text(name, record, columns.response)).strip()
            if not answer or not prompt:
                return
            messages.append(Message("assistant", answer))
    if messages:
        yield tuple(messages)


def _conversation(name: str, turns: object) -> list[Message]:
    found = []
    for turn in turns if isinstance(turns, list) else []:
        role = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
        content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
        role = _ROLE.get(str(role), role)
        if role not in ROLES or not isinstance(content, str):
            raise TextError(f"source {name!r}: a conversation is a list of role and content, got {str(turn)[:60]!r}")
        found.append(Message(str(role), content.strip()))
    return found


_NOTHING = object()


def _at(record: Mapping[str, Any], column: str) -> Any:
    """The value of a column; of a dotted one, inside nested records."""
    value: Any = record
    for part in [column] if column in record else column.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _NOTHING
        value = value[part]
    return value


def _text(name: str, record: Mapping[str, Any], column: str) -> str:
    value = _at(record, column)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TextError(f"source {name!r}: the column {column!r} holds {type(value).__name__}, not text")
    return value.replace("\r\n", "\n").replace("\x00", "").encode("utf-8", "ignore").decode("utf-8")


def _cut_out(source: Source, text: str) -> str:
    return re.sub(source.remove, "", text) if source.remove is not None else text


def pieces(text: str, limit: int | None) -> Iterator[str]:
    """Cut a text at blank lines (at line breaks where there are none) once a piece has `limit` characters."""
    text = text.strip()
    if limit is None:
        if text:
            yield text
        return
    gathered: list[str] = []
    size = 0
    for paragraph in re.split(r"\n{2,}", text) if "\n\n" in text else text.split("\n"):
        gathered.append(paragraph)
        size += len(paragraph)
        if size >= limit:
            yield "\n\n".join(gathered)
            gathered, size = [], 0
    if gathered and size:
        yield "\n\n".join(gathered)


# --- where records come from


def _local(name: str, source: Source, folder: Path) -> Iterator[Mapping[str, Any]]:
    assert source.local is not None
    files = sorted(folder.glob(source.local.pattern))
    if not files:
        raise TextError(
            f"source {name!r}: there is no {source.local.pattern} in {folder}; give the folder that holds it (--local)"
        )
    for file in files:
        column = (source.local.columns or source.columns).text or "text"
        yield from records_of(file, column, source.local.separator)


def records_of(file: Path, column: str = "text", separator: str | None = None) -> Iterator[Mapping[str, Any]]:
    """The records of a local file; a .txt gives records of one column.

    Raises:
        TextError: it cannot be read, is damaged, or is of no kind that is read.
    """
    kind = file.name.lower().removesuffix(".gz")
    if not kind.endswith(_SUFFIXES):
        raise TextError(f"{file} is of no kind that is read; give one of {', '.join(_SUFFIXES)}, also .gz")
    try:
        if kind.endswith(".parquet"):
            yield from _parquet(file)
            return
        opened: Any = gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb")
        with opened, io.TextIOWrapper(opened, encoding="utf-8-sig", newline="") as lines:
            if kind.endswith(".txt"):
                text = lines.read()
                yield from ({column: piece} for piece in (text.split(separator) if separator else [text]))
            elif kind.endswith(".json"):
                yield from (_record(file, i, each) for i, each in enumerate(_listed(file, json.load(lines)), 1))
            else:
                yield from (_record(file, i, json.loads(line)) for i, line in enumerate(lines, 1) if line.strip())
    except OSError as error:
        raise TextError(f"{file} cannot be read: {error.strerror or error}") from None
    except (EOFError, zlib.error, UnicodeDecodeError, ValueError, RecursionError) as error:
        if isinstance(error, MicroStepError):
            raise
        raise TextError(f"{file} is damaged or not what its name says ({error}); fetch it again") from None


def _listed(file: Path, found: object) -> Sequence[Any]:
    if not isinstance(found, list):
        raise TextError(f"{file} is no JSON list of records")
    return found


def _record(file: Path, number: int, found: object) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise TextError(f"{file}, record {number} is no JSON object")
    return found


def _parquet(file: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as opened:
            for batch in opened.iter_batches(256):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise TextError(f"{file} is no Parquet file that can be read ({error}); fetch it again") from None


def _hub(name: str, source: Source) -> Iterator[Mapping[str, Any]]:
    if source.hub is None:
        raise TextError(f"source {name!r} is on no hub; give the folder that holds its files (--local)")
    import datasets  # heavy, and not needed for local files

    try:
        yield from datasets.load_dataset(source.hub.id, source.hub.subset, split=source.hub.split, streaming=True)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TextError(
            f"source {name!r}: the hub's {source.hub.id} cannot be read ({reason}); check the network, log in if it is"
            " gated, or give a folder with its files (--local)"
        ) from None
