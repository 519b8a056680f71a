"""The records of a source, one mapping of columns each, in a fixed order: from the hub, from files, or from a grammar.

reading.py turns records into examples; this module knows nothing about that.
"""

import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from data.sources.schema import Source
from model.errors import TextError, first_line
from model.git_lfs import pointer
from model.reading.declared_sizes import rows_at_once
from model.reading.json_text import parse_json
from model.reading.unpacked import unpacked

Record = Mapping[str, object]
_SUFFIXES = (".txt", ".jsonl", ".json", ".parquet")  # the first three also with .gz
_DEFAULT = ("{}.jsonl", "{}.jsonl.gz", "{}.parquet", "{}/*.parquet", "{}/*.jsonl", "{}/*.jsonl.gz")


def records(source: Source, local: Path | None) -> Iterator[Record]:
    """Yield the records of a source.

    Args:
        source: the source.
        local: the folder that holds its files; None: the hub. A file that a user named is read from its own path.
    """
    if source.templates is not None:
        from data.sources.prompt_grammar import prompts, read_grammar

        yield from ({"prompt": prompt} for prompt in prompts(read_grammar(source.templates)))
    elif _is_own(source) or local is not None:
        for file in files(source, local):
            yield from _file_records(source, file)
    else:
        yield from _hub_records(source)


def files(source: Source, local: Path | None) -> list[Path]:
    folder = Path() if local is None else local
    patterns = [source.local] if source.local else [pattern.format(source.name) for pattern in _DEFAULT]
    for pattern in patterns:
        exact = folder / pattern
        if exact.is_file():
            return [exact]
        whole = Path(pattern)
        root, below = (Path(whole.anchor), whole.relative_to(whole.anchor)) if whole.anchor else (folder, whole)
        if found := sorted(file for file in root.glob(str(below)) if file.is_file()):
            return found
    if _is_own(source):
        raise TextError(f"there is no file {source.local}; check the path in the mix")
    raise TextError(f"source {source.name!r}: no file {patterns[0]} in {local}; give the folder that holds it")


def require_source(source: Source, local: Path | None) -> None:
    """Check that a source can be read, as far as possible without reading it."""
    if source.templates is not None:
        return
    if _is_own(source) or local is not None:
        files(source, local)
    elif source.hub is None:
        raise TextError(
            f"source {source.name!r} is not on the hub; give the folder that holds {source.local}"
            " (local_folder, --local)"
        )


def _is_own(source: Source) -> bool:
    """True if a user named the file itself."""
    return source.hub is None and source.local is not None and Path(source.local).is_absolute()


# --- files


def _file_records(source: Source, file: Path) -> Iterator[Record]:
    plain = file.name.lower().removesuffix(".gz")
    suffix = Path(plain).suffix
    if suffix not in _SUFFIXES or (suffix == ".parquet" and plain != file.name.lower()):
        raise TextError(f"source {source.name!r}: {file} is of an unsupported kind; give one of {', '.join(_SUFFIXES)}")
    if (problem := pointer(file)) is not None:
        raise TextError(f"source {source.name!r}: {problem}")
    if suffix == ".parquet":
        yield from _parquet_records(source, file)
        return
    compressed = plain != file.name.lower()
    kind = {".txt": "text", ".jsonl": "JSON lines", ".json": "JSON, a list of objects"}[suffix]
    try:
        with _open(file, compressed, suffix != ".jsonl") as stream:
            if suffix == ".txt":
                whole = stream.read()
                texts = whole.split(source.separator) if source.separator else [whole]
                column = source.text or "text"
                yield from ({column: piece} for piece in texts)
            elif suffix == ".json":
                yield from _objects(parse_json(stream.read()))
            else:
                yield from _objects(_json_lines(stream))
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:  # ValueError: not UTF-8, not JSON
        raise TextError(
            f"source {source.name!r}: {file} is not {'a gzip file of ' if compressed else ''}UTF-8 {kind} ({error});"
            " fetch it again"
        ) from None


def _open(file: Path, compressed: bool, whole: bool) -> IO[str]:
    if compressed:
        return io.TextIOWrapper(unpacked(file.open("rb"), whole), encoding="utf-8-sig")
    return file.open(encoding="utf-8-sig")


def _json_lines(lines: Iterable[str]) -> Iterator[object]:
    return (parse_json(line) for line in lines if line.strip())


def _objects(values: object) -> Iterator[Record]:
    if not isinstance(values, Iterable) or isinstance(values, dict | str):
        raise ValueError("not a list of objects")
    for value in values:
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        yield value


def _parquet_records(source: Source, file: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches(rows_at_once(table, str(file), 256)):
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        problem = f"is not a Parquet file ({first_line(error)})"
        raise TextError(f"source {source.name!r}: {file} {problem}; fetch it again") from None


# --- the hub


def _hub_records(source: Source) -> Iterator[Record]:
    require_source(source, None)
    try:
        import datasets  # heavy, and not needed for local files
    except ImportError as error:
        raise TextError(
            f"source {source.name!r}: reading {source.hub} needs the package datasets; pip install datasets"
        ) from error
    options = {"split": source.split, "streaming": True}
    if source.revision is not None:
        options["revision"] = source.revision
    try:
        yield from datasets.load_dataset(source.hub, source.subset, **options)
    except TextError:
        raise
    except Exception as error:
        terms = "accept its terms on the hub and log in, " if source.gated else ""
        raise TextError(
            f"source {source.name!r}: {source.hub} cannot be read from the hub ({first_line(error)}); "
            f"{terms}check the network, or give a local folder"
        ) from error
