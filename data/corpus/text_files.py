"""The texts of a corpus: from a text, JSON-lines or Parquet file, or a data set of the hub.

Values come in a fixed order, together with what identifies them: a file's hash or a data set's commit. This module
knows nothing about documents, models or stores.
"""

import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

from model.errors import TextError, first_line
from model.git_lfs import pointer
from model.hub.cache import remembered_sha256

Cut = Literal["file", "paragraph", "line"]
SUFFIXES = (".txt", ".txt.gz", ".jsonl", ".jsonl.gz", ".parquet")
HUB_SECONDS = 10.0  # time-out for asking the hub for a data set's commit
_PARQUET_ROWS = 256
_UNREADABLE = (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError)


@dataclass(frozen=True)
class CorpusSpec:
    """The data set that a user names, and how to find documents in it."""

    data: str  # a file with one of `SUFFIXES`, or a data set's hub id
    column: str = "text"
    """Column of JSON lines, Parquet and hub data that holds a text, or a conversation (a list of role and content)."""
    documents: Cut = "file"
    """For .txt: the whole file is one document, or each block between blank lines, or each line that is not blank."""
    subset: str | None = None  # configuration of a hub data set
    split: str = "train"  # split of a hub data set
    revision: str | None = None  # branch, tag or commit of a hub data set


@dataclass(frozen=True)
class DataFacts:
    """Everything that decides which documents a corpus holds."""

    kind: Literal["file", "hub"]
    name: str  # the file's name without its folder, or the hub id
    revision: str  # "sha256:..." of the file, or the hub's commit
    subset: str | None
    split: str | None


# --- files


def file_facts(path: Path) -> DataFacts:
    """Return the facts about a file, identified by its hash."""
    path = path.expanduser()
    if (problem := pointer(path)) is not None:
        raise TextError(f"{path} cannot be read: {problem}")
    try:
        return DataFacts("file", path.name, f"sha256:{remembered_sha256(path)}", None, None)
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None


def file_values(spec: CorpusSpec) -> Iterator[tuple[object, float | None]]:
    """Yield the values of a file, each with the share of the file that has been read."""
    path = Path(spec.data).expanduser()
    kind = path.name.lower().removesuffix(".gz")
    try:
        if kind.endswith(".parquet"):
            yield from _parquet_values(path, spec)
            return
        size = max(1, path.stat().st_size)
        with path.open("rb") as raw:
            plain = gzip.GzipFile(fileobj=raw) if path.name.lower().endswith(".gz") else raw
            with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as lines:
                values = _json_values(lines, spec) if kind.endswith(".jsonl") else _text_values(lines, spec.documents)
                for value in values:
                    yield value, min(1.0, raw.tell() / size)
    except _UNREADABLE as error:
        raise TextError(f"{spec.data} is damaged or not UTF-8 ({error}); save or fetch it again") from None
    except OSError as error:
        raise TextError(f"{spec.data} cannot be read: {error.strerror or error}") from None


def column_names_of(spec: CorpusSpec) -> list[str]:
    """Return the columns of a file: of JSON lines those of the first line. A text file has none."""
    path = Path(spec.data).expanduser()
    kind = path.name.lower().removesuffix(".gz")
    try:
        if kind.endswith(".parquet"):
            import pyarrow.parquet as pq

            return list(pq.read_schema(path).names)
        if not kind.endswith(".jsonl"):
            return []
        with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as raw:
            first = json.loads(next((line for line in raw if line.strip()), b"{}").decode("utf-8-sig"))
        return list(first) if isinstance(first, dict) else []
    except (*_UNREADABLE, OSError, ValueError) as error:
        raise TextError(f"{spec.data} cannot be read: {error}") from None


def _text_values(lines: TextIO, unit: Cut) -> Iterator[str]:
    if unit == "file":
        yield lines.read()
    elif unit == "line":
        for line in lines:
            if line.strip():
                yield line.rstrip("\r\n")
    else:
        block: list[str] = []
        for line in lines:
            if line.strip():
                block.append(line)
            elif block:
                yield "".join(block).rstrip("\r\n")
                block = []
        if block:
            yield "".join(block).rstrip("\r\n")


def _json_values(lines: TextIO, spec: CorpusSpec) -> Iterator[object]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextError(f"{spec.data}, line {number} is not JSON ({error}); expected one object per line") from None
        if not isinstance(record, dict):
            raise TextError(f"{spec.data}, line {number} is not a JSON object; expected one object per line")
        yield _value(record, spec)


def _parquet_values(path: Path, spec: CorpusSpec) -> Iterator[tuple[object, float | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if spec.column not in names:
                raise _no_column(spec, names)
            done, total = 0, file.metadata.num_rows
            for batch in file.iter_batches(_PARQUET_ROWS, columns=[spec.column]):
                for value in batch.column(0).to_pylist():
                    done += 1
                    yield value, done / total
    except pa.ArrowException as error:
        raise TextError(f"{spec.data} is not a readable Parquet file ({error}); fetch it again") from None


def _value(record: Mapping[str, object], spec: CorpusSpec) -> object:
    if spec.column not in record:
        raise _no_column(spec, list(record))
    return record[spec.column]


def _no_column(spec: CorpusSpec, names: list[str]) -> TextError:
    return TextError(
        f"{spec.data} has no column {spec.column!r}; choose one with --column: {', '.join(names) or 'there are none'}"
    )


# --- the hub


def hub_facts(spec: CorpusSpec) -> DataFacts:
    """Ask the hub for the data set's commit, so that all later reads are of the same one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    no_file = f"there is no file {spec.data!r}"
    if spec.data.lower().endswith(SUFFIXES) or spec.data.startswith((".", "/", "~")):
        raise TextError(f"{no_file}; check its path")
    try:
        commit = HfApi().dataset_info(spec.data, revision=spec.revision, timeout=HUB_SECONDS).sha
    except HFValidationError:
        raise TextError(f"{no_file}, and it is not a hub id; give a file ({', '.join(SUFFIXES)}) or a hub id") from None
    except HfHubHTTPError as error:
        raise TextError(f"{no_file}, and the hub has no such data set ({first_line(error)}); check its name") from None
    except Exception as error:
        raise TextError(f"{no_file}, and the hub cannot be reached ({first_line(error)}); give a file") from error
    return DataFacts("hub", spec.data, str(commit), spec.subset, spec.split)


def hub_values(spec: CorpusSpec, facts: DataFacts, start: int) -> Iterator[tuple[object, float | None]]:
    """Yield the column's values from row `start` on."""
    import datasets  # heavy, and not needed for local files

    try:
        stream = datasets.load_dataset(
            spec.data, spec.subset, split=spec.split, revision=facts.revision, streaming=True
        )
        for record in stream.skip(start) if start else stream:
            yield _value(record, spec), None
    except TextError:
        raise
    except Exception as error:
        raise TextError(
            f"the hub's {spec.data} cannot be read ({first_line(error)}); check --subset, --split and the network"
        ) from error
