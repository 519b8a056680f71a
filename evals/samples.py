"""The samples of a run: a folder for one model, with a file of lines for each benchmark and tau.

    FOLDER/manifest.json          the model and the options, shared by all samples of the folder
    FOLDER/BENCHMARK@TAU.jsonl    a head, then one sample per line, written and flushed after each batch

A plain model's files are BENCHMARK@base.jsonl. A writer that is killed leaves at most one torn last line, which the
next one removes. The lines are in the order of the batches, which is the same in every run.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from data.corpus.store import MANIFEST
from data.corpus.store_writer import write_or_compare
from evals.aggregate import Value
from model.atomic_files import append, read_json
from model.errors import ExportError, TextError
from model.reading.json_text import parse_json
from model.reading.regular_files import read_bytes

FORMAT = "micro_step evaluation 1"
BASE = "base"


@dataclass(frozen=True)
class WrittenAnswer:
    """One generated answer, token by token."""

    text: str  # as it is scored: truncated at the stop string
    tokens: tuple[str, ...]  # each token decoded on its own; one that is split inside a character shows a mark
    ids: tuple[int, ...]
    starts: tuple[int, ...]  # index of each segment's first token
    probability: tuple[float, ...] | None  # of each token, under the part that generated it
    ended: bool

    def __post_init__(self) -> None:
        count = len(self.tokens)
        if len(self.ids) != count or len(self.probability or self.ids) != count:
            raise ValueError(f"{count} tokens, {len(self.ids)} ids, {len(self.probability or self.ids)} probabilities")
        if list(self.starts) != sorted({*self.starts} & {*range(count)}):
            raise ValueError(f"segments start at {self.starts} of {count} tokens")


@dataclass(frozen=True)
class Sample:
    """One document of a benchmark with its answers and scores."""

    document: int  # index in the data set, from 0
    prompt: str
    scores: Mapping[str, Value]
    detail: Mapping[str, Any]
    answers: tuple[WrittenAnswer, ...]  # generated answers; empty if likelihoods were computed
    tokens: int  # generated or scored
    macro_steps: int  # passes of the base for them
    micro_steps: int  # tokens that the micro decoder proposed
    seconds: float  # its share of its batch's time
    cut: int  # tokens of the prompt that were left out because they did not fit the context


@dataclass(frozen=True)
class Head:
    """The first line of a file of samples."""

    benchmark: str
    tau: float | None  # None: a plain model
    documents: int  # number of documents when the run is complete
    data: str  # SHA-256 of the documents
    format: str = FORMAT


@dataclass(frozen=True)
class SampleFile:
    """The samples of a benchmark for one tau, as far as they are finished."""

    head: Head
    samples: tuple[Sample, ...]

    @property
    def complete(self) -> bool:
        return len(self.samples) >= self.head.documents


def file_name(benchmark: str, tau: float | None) -> str:
    return f"{benchmark}@{BASE if tau is None else format(tau, 'g')}.jsonl"


_HEAD, _SAMPLE = TypeAdapter(Head), TypeAdapter(Sample)


def to_lines(records: Sequence[Head | Sample]) -> bytes:
    lines = (json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n" for record in records)
    return b"".join(line.encode("utf-8", "replace") for line in lines)


def read_samples(path: Path) -> tuple[SampleFile, int] | None:
    """Return a file of samples, and the number of bytes in complete lines; None if not even the head is complete."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None
    complete = content[: content.rfind(b"\n") + 1]
    if not complete:
        return None
    try:
        first, *others = complete.splitlines()
        if parse_json(first).get("format") != FORMAT:
            raise TextError(f"{path} does not have the format {FORMAT!r}")
        head = _HEAD.validate_json(first)
        samples = tuple(map(_SAMPLE.validate_json, others))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise _damaged(path, f"{where}: {problem['msg']}" if where else problem["msg"]) from None
    except (ValueError, AttributeError) as error:
        raise _damaged(path, error) from None
    return SampleFile(head, samples), len(complete)


def _damaged(path: Path, what: object) -> TextError:
    return TextError(f"{path} is damaged ({what}); remove it and run the same command again")


class SampleWriter:
    def __init__(self, path: Path, head: Head) -> None:
        """Begin a file, or resume one.

        Raises:
            ExportError: it was begun with other documents, or cannot be written.
            TextError: it is damaged.
        """
        existing = read_samples(path)
        self._path, self.samples = path, list[Sample]()
        if existing is None:
            self._write(path, to_lines([head]), 0)
            return
        found, size = existing
        if found.head != head:
            raise ExportError(
                f"{path} was begun with other documents ({found.head.documents} of them);"
                " use the same data and --limit as before, or give --out another folder"
            )
        self.samples = list(found.samples)
        self._write(path, b"", size)

    def add(self, samples: Sequence[Sample]) -> None:
        """Append samples in one piece, and flush them to disk."""
        self._write(self._path, to_lines(samples), None)
        self.samples += samples

    @staticmethod
    def _write(path: Path, content: bytes, size: int | None) -> None:
        append(path, content, size, "the samples before are kept: run the same command again to resume")


# --- the manifest


def begin(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a new folder, or check that a begun one has the same model and options."""
    begun = read_manifest(folder) if (folder / MANIFEST).exists() else None
    write_or_compare(folder, manifest, begun, ("options",))


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest that a folder's samples share."""
    manifest = read_json(folder / MANIFEST)
    whole = isinstance(manifest, dict) and manifest.get("format") == FORMAT
    if whole and isinstance(manifest.get("model"), dict) and isinstance(manifest.get("options"), dict):
        return dict(manifest)
    raise TextError(f"{folder} holds no evaluation; give a folder that `micro-step eval run --out` wrote")
