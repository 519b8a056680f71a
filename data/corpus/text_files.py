"""The texts of a corpus: from a text file, a table (record_files.py), or a data set of the hub.

Values come in a fixed order, together with what identifies them: a file's hash or a data set's commit. This module
knows nothing about documents, models or stores.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, TextIO

from data.corpus.record_files import TABLE_SUFFIXES, parquet_records, text_records
from model.errors import TextError, first_line
from model.git_lfs import pointer
from model.hub.cache import remembered_sha256
from model.reading.unpacked import TooMuchContent, unpacked
from model.storage.places import Address, Place, opened, place_of

Cut = Literal["file", "paragraph", "line"]
SUFFIXES = (".txt", ".txt.gz", *TABLE_SUFFIXES)
Value = tuple[object, Mapping[str, object], float | None]
"""A text or a conversation, the other columns of its row, and the share of the corpus that has been read."""
HUB_SECONDS = 10.0  # time-out for asking the hub for a data set's commit
_UNREADABLE = (EOFError, gzip.BadGzipFile, zlib.error, UnicodeDecodeError)


@dataclass(frozen=True)
class CorpusSpec:
    """The data set that a user names, and how to find documents in it."""

    data: str  # a file with one of `SUFFIXES`, or a data set's hub id
    column: str = "text"
    """Column of a table or of hub data that holds a text, or a conversation (a list of role and content)."""
    documents: Cut = "file"
    """For .txt: the whole file is one document, or each block between blank lines, or each line that is not blank."""
    subset: str | None = None  # configuration of a hub data set
    split: str = "train"  # split of a hub data set
    revision: str | None = None  # branch, tag or commit of a hub data set
    ids: tuple[str, ...] = ()  # columns that together name a document


@dataclass(frozen=True)
class DataFacts:
    """Everything that decides which documents a corpus holds."""

    kind: Literal["file", "hub"]
    name: str  # the file's name without its folder, or the hub id
    revision: str  # "sha256:..." of the file, or the hub's commit
    subset: str | None
    split: str | None


# --- files


def file_place(spec: CorpusSpec) -> Place:
    """Where the file of a corpus is."""
    place = place_of(spec.data)
    return place if isinstance(place, Address) else place.expanduser()


def file_facts(path: Place) -> DataFacts:
    """Return the facts about a file, identified by its hash; one in object storage is read for it."""
    if isinstance(path, Address):
        try:
            with opened(path) as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            return DataFacts("file", path.name, f"sha256:{digest}", None, None)
        except FileNotFoundError:
            raise TextError(f"there is no file {path}; check its address") from None
    path = path.expanduser()
    if (problem := pointer(path)) is not None:
        raise TextError(f"{path} cannot be read: {problem}")
    try:
        return DataFacts("file", path.name, f"sha256:{remembered_sha256(path)}", None, None)
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None


def file_values(spec: CorpusSpec, start: int = 0, others: Collection[str] | None = None) -> Iterator[Value]:
    """Yield the values of a file.

    Args:
        spec: names the file.
        start: the first row to yield.
        others: columns that are needed beside the text and the ids; None: all. Of Parquet, no others are read.
    """
    only = None if others is None else {spec.column, *spec.ids, *others}
    for record, share in _file_records(spec, start, only):
        yield (record, {}, share) if isinstance(record, str) else (*_divided(record, spec), share)


def column_names_of(spec: CorpusSpec) -> list[str]:
    """Return the columns of a file, by its first row. A text file has none."""
    first, _ = next(_file_records(spec), ("", 0.0))
    return [] if isinstance(first, str) else list(first)


def _file_records(
    spec: CorpusSpec, start: int = 0, only: Collection[str] | None = None
) -> Iterator[tuple[str | dict[str, Any], float]]:
    """Yield the texts of a text file or the rows of a table, each with the share of the file that has been read."""
    path = file_place(spec)
    kind = path.name.lower().removesuffix(".gz")
    try:
        if kind.endswith(".parquet"):
            yield from parquet_records(path, spec.data, start, only)
            return
        with opened(path) as raw:
            size = max(1, raw.seek(0, io.SEEK_END))
            raw.seek(0)
            plain = unpacked(raw, _whole(kind, spec.documents)) if path.name.lower().endswith(".gz") else raw
            with io.TextIOWrapper(plain, encoding="utf-8-sig", newline="") as lines:
                records: Iterator[str | dict[str, Any]]
                if kind.endswith(".txt"):
                    records = _text_values(lines, spec.documents)
                else:
                    records = text_records(lines, spec.data, kind)
                rest: Iterator[str | dict[str, Any]] = islice(records, start, None)
                for record in rest:
                    yield record, min(1.0, raw.tell() / size)
    except TooMuchContent as error:
        raise TextError(f"{spec.data} is not read: {error}") from None
    except _UNREADABLE as error:
        raise TextError(f"{spec.data} is damaged or not UTF-8 ({error}); save or fetch it again") from None
    except OSError as error:
        raise TextError(f"{spec.data} cannot be read: {error.strerror or error}") from None


def _whole(kind: str, unit: Cut) -> bool:
    """Whether such a file is held in memory at once."""
    return kind.endswith(".json") or (kind.endswith(".txt") and unit == "file")


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


def _divided(record: dict[str, Any], spec: CorpusSpec) -> tuple[object, dict[str, Any]]:
    """The value of a row, and its other columns."""
    for name in (spec.column, *spec.ids):
        if name not in record:
            raise _no_column(spec, list(record))
    return record[spec.column], {name: value for name, value in record.items() if name != spec.column}


def _no_column(spec: CorpusSpec, names: list[str]) -> TextError:
    choice = ", ".join(names) or "there are none"
    if spec.column in names:
        missing = next(name for name in spec.ids if name not in names)
        return TextError(f"{spec.data} has no column {missing!r}; choose --id among {choice}")
    hint = " (separate the columns of a .csv by commas)" if len(names) == 1 and ";" in names[0] else ""
    return TextError(f"{spec.data} has no column {spec.column!r}; choose one with --column: {choice}{hint}")


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


def hub_values(spec: CorpusSpec, facts: DataFacts, start: int) -> Iterator[Value]:
    """Yield the values from row `start` on."""
    import datasets  # heavy, and not needed for local files

    try:
        stream = datasets.load_dataset(
            spec.data, spec.subset, split=spec.split, revision=facts.revision, streaming=True
        )
        for record in stream.skip(start) if start else stream:
            yield (*_divided(record, spec), None)
    except TextError:
        raise
    except Exception as error:
        raise TextError(
            f"the hub's {spec.data} cannot be read ({first_line(error)}); check --subset, --split and the network"
        ) from error
