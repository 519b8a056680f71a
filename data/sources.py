"""Training data as data: what each source is, where it lives, how a record of it reads, and its licence.

A source is read from the Hugging Face hub by its id, or from local files that the user points at. This module knows
nothing about tokens, models or mixes; it hands out texts and (prompt, response) pairs, in a fixed order.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from model.errors import MicroStepError


@dataclass(frozen=True)
class Document:
    """One record: a plain text (``prompt`` is None), or a prompt and the response to it."""

    text: str
    prompt: str | None = None


@dataclass(frozen=True)
class Source:
    """Where one data set lives and how a record of it becomes a :class:`Document`.

    ``text`` and ``prompt`` name columns. A source without ``prompt`` is plain text; in one that has it, ``text`` is the
    response.
    """

    name: str
    title: str
    licence: str
    local: str  # file name or pattern, relative to the user's folder
    text: str = "text"
    prompt: str | None = None
    prompt_pattern: str | None = None  # group 1 is what the user said; the rest is the data set's own template
    removed: str | None = None  # pattern cut out of the text
    hub: str | None = None
    subset: str | None = None
    split: str = "train"
    separator: str | None = None  # between documents of a local .txt file; None: the file is one document
    piece_chars: int | None = None  # a longer text is cut at blank lines into pieces of about this many characters


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            name="tinystories",
            title="TinyStories (sample)",
            licence="CDLA-Sharing-1.0",
            local="text/tinystories_sample_2MiB.txt.gz",
            hub="roneneldan/TinyStories",
            separator="<|endoftext|>",
        ),
        Source(
            name="novels",
            title="Seven English novels, 1847-1911",
            licence="public domain",
            local="text/novels/*.txt.gz",
            piece_chars=4000,
        ),
        Source(
            name="tinyshakespeare",
            title="Plays of Shakespeare (tinyshakespeare)",
            licence="public domain",
            local="text/tinyshakespeare.txt.gz",
            piece_chars=4000,
        ),
        Source(
            name="thealgorithms_python",
            title="TheAlgorithms/Python",
            licence="MIT",
            local="code/thealgorithms_python.jsonl.gz",
        ),
        Source(
            name="gsm8k",
            title="GSM8K, training split",
            licence="MIT",
            local="gsm8k/train.jsonl.gz",
            text="answer",
            prompt="question",
            removed=r"<<[^<>]*>>",  # calculator calls, not part of the written solution
            hub="openai/gsm8k",
            subset="main",
        ),
        Source(
            name="dolly_hhrlhf",
            title="dolly_hhrlhf, training split",
            licence="CC-BY-SA-3.0 (dolly), MIT (hh-rlhf)",
            local="instruct/dolly_hhrlhf_train_small.jsonl.gz",
            text="response",
            prompt="prompt",
            prompt_pattern=r"(?s)### Instruction:\n(.*?)\s*### Response:",
            hub="mosaicml/dolly_hhrlhf",
        ),
    )
}


def source(name: str) -> Source:
    """Return the source called ``name``.

    Raises:
        MicroStepError: no source has that name.
    """
    if name not in SOURCES:
        raise MicroStepError(f"no data source is called {name!r}; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def read(source: Source, local_folder: Path | str | None = None) -> Iterator[Document]:
    """Yield the documents of ``source``, from ``local_folder`` if given, else streamed from the hub.

    Args:
        source: one of :data:`SOURCES`.
        local_folder: the folder under which ``source.local`` is found.

    Raises:
        MicroStepError: the source has no hub id and no folder was given, a file is missing or is not what it should
            be, or the hub cannot be reached.
    """
    records = _hub_records(source) if local_folder is None else _local_records(source, Path(local_folder))
    for record in records:
        yield from _documents(source, record)


def _documents(source: Source, record: Mapping[str, object]) -> Iterator[Document]:
    """Turn one record into documents; empty ones are left out."""
    text = _column(source, record, source.text)
    if source.removed is not None:
        text = re.sub(source.removed, "", text)
    if source.prompt is None:
        for piece in _pieces(text, source.piece_chars):
            yield Document(piece)
        return
    prompt = _column(source, record, source.prompt)
    if source.prompt_pattern is not None:
        found = re.search(source.prompt_pattern, prompt)
        prompt = found.group(1) if found else prompt
    if prompt.strip() and text.strip():
        yield Document(text.strip(), prompt.strip())


def _column(source: Source, record: Mapping[str, object], column: str) -> str:
    value = record.get(column)
    if not isinstance(value, str):
        raise MicroStepError(
            f"source {source.name!r}: a record has no text in column {column!r}, only {', '.join(record) or 'none'}; "
            "check that this is the data set that the source names"
        )
    return value


def _pieces(text: str, limit: int | None) -> Iterator[str]:
    """Cut a text at blank lines (at line breaks where there are none) once a piece has ``limit`` characters."""
    text = text.replace("\r\n", "\n").strip()
    if limit is None:
        if text:
            yield text
        return
    pieces: list[str] = []
    size = 0
    for paragraph in re.split(r"\n{2,}", text) if "\n\n" in text else text.split("\n"):
        pieces.append(paragraph)
        size += len(paragraph)
        if size >= limit:
            yield "\n\n".join(pieces)
            pieces, size = [], 0
    if pieces:
        yield "\n\n".join(pieces)


def _local_records(source: Source, folder: Path) -> Iterator[Mapping[str, object]]:
    files = sorted(folder.glob(source.local))
    if not files:
        raise MicroStepError(
            f"source {source.name!r}: no file {source.local} in {folder}; give the folder that holds it"
        )
    for file in files:
        try:
            with gzip.open(file, "rt", encoding="utf-8-sig") as stream:
                if file.name.endswith(".txt.gz"):
                    text = stream.read()
                    texts = text.split(source.separator) if source.separator else [text]
                    yield from ({source.text: piece} for piece in texts)
                else:
                    yield from _json_lines(stream)
        except (OSError, EOFError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise MicroStepError(
                f"source {source.name!r}: {file} is not a gzip file of UTF-8 "
                f"{'text' if file.name.endswith('.txt.gz') else 'JSON lines'} ({error}); fetch it again"
            ) from error


def _json_lines(lines: Iterable[str]) -> Iterator[Mapping[str, object]]:
    for line in lines:
        if line.strip():
            record = json.loads(line)
            if not isinstance(record, dict):
                raise json.JSONDecodeError("not a JSON object", line, 0)
            yield record


def _hub_records(source: Source) -> Iterator[Mapping[str, object]]:
    if source.hub is None:
        raise MicroStepError(
            f"source {source.name!r} is on no hub; give the folder that holds {source.local} (local_folder, --local)"
        )
    try:
        import datasets  # heavy, and not needed for local files
    except ImportError as error:
        raise MicroStepError(
            f"source {source.name!r}: reading {source.hub} needs the package datasets; pip install datasets"
        ) from error
    try:
        stream = datasets.load_dataset(source.hub, source.subset, split=source.split, streaming=True)
        yield from stream
    except (OSError, ValueError, RuntimeError) as error:  # the hub client's errors are OSErrors
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MicroStepError(
            f"source {source.name!r}: {source.hub} cannot be read from the hub ({reason}); "
            "check the network, or give a local folder"
        ) from error
