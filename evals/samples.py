"""Where the samples of a run lie: a folder for one model, a file of lines for each benchmark under each tau.

    FOLDER/manifest.json          the model and the options: what every sample of the folder shares
    FOLDER/BENCHMARK@TAU.jsonl    a head, then a sample a line, written and flushed as each batch is done

A plain model's files are BENCHMARK@base.jsonl. A writer that is killed leaves at most one torn line at the end, which
the next one takes off. The order of the lines is the order of the batches, which is the same in every run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from data.corpus.store import IDENTITY, MANIFEST
from data.corpus.store_writer import refuse_other
from evals.aggregate import Value
from model.atomic_files import append, as_json, atomic_write
from model.errors import ExportError, TextError

FORMAT = "micro_step evaluation 1"
BASE = "base"


@dataclass(frozen=True)
class WrittenAnswer:
    """One written answer, token by token."""

    text: str  # as it is scored: cut at the stop string
    tokens: tuple[str, ...]  # what each token spells; one that is split inside a character shows a mark
    ids: tuple[int, ...]
    starts: tuple[int, ...]  # index of each segment's first token
    probability: tuple[float, ...] | None  # of each token, under whichever part wrote it
    ended: bool

    def __post_init__(self) -> None:
        count = len(self.tokens)
        if len(self.ids) != count or len(self.probability or self.ids) != count:
            raise ValueError(f"{count} tokens, {len(self.ids)} ids, {len(self.probability or self.ids)} probabilities")
        if list(self.starts) != sorted({*self.starts} & {*range(count)}):
            raise ValueError(f"segments start at {self.starts} of {count} tokens")


@dataclass(frozen=True)
class Sample:
    """One document of a benchmark."""

    document: int  # its number in the data set, from 0
    prompt: str
    scores: Mapping[str, Value]
    detail: Mapping[str, Any]
    answers: tuple[WrittenAnswer, ...]  # what was written; empty where likelihoods were computed
    tokens: int  # written, or scored
    macro_steps: int  # passes of the base for them
    micro_steps: int  # tokens that the micro decoder offered
    seconds: float  # its share of its batch's time
    cut: int  # tokens of the prompt that did not fit the model's context, and were left out


@dataclass(frozen=True)
class Head:
    """The first line of a file of samples."""

    benchmark: str
    tau: float | None  # None: a plain model
    documents: int  # that the run has, once it is done
    data: str  # SHA-256 of the documents
    format: str = FORMAT


@dataclass(frozen=True)
class SampleFile:
    """A benchmark's samples under one tau, as far as they are there."""

    head: Head
    samples: tuple[Sample, ...]

    @property
    def complete(self) -> bool:
        """Whether every document is there."""
        return len(self.samples) >= self.head.documents


def file_name(benchmark: str, tau: float | None) -> str:
    """The name of a file of samples."""
    return f"{benchmark}@{BASE if tau is None else format(tau, 'g')}.jsonl"


_HEAD, _SAMPLE = TypeAdapter(Head), TypeAdapter(Sample)


def to_lines(records: Sequence[Head | Sample]) -> bytes:
    """Records as they stand in a file."""
    lines = (json.dumps(dataclasses.asdict(record), ensure_ascii=False) + "\n" for record in records)
    return b"".join(line.encode("utf-8", "replace") for line in lines)


def read_samples(path: Path) -> tuple[SampleFile, int] | None:
    """A file of samples, and how many of its bytes are whole lines; None where not even the head is.

    Raises:
        TextError: it is no such file, or it is damaged elsewhere than at its end.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None
    whole = content[: content.rfind(b"\n") + 1]
    if not whole:
        return None
    try:
        first, *others = whole.splitlines()
        if json.loads(first).get("format") != FORMAT:
            raise TextError(f"{path} is not of {FORMAT!r}")
        head = _HEAD.validate_json(first)
        samples = tuple(map(_SAMPLE.validate_json, others))
    except ValidationError as error:
        said = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, said["loc"]))
        raise _damaged(path, f"{where}: {said['msg']}" if where else said["msg"]) from None
    except (ValueError, AttributeError) as error:
        raise _damaged(path, error) from None
    return SampleFile(head, samples), len(whole)


def _damaged(path: Path, what: object) -> TextError:
    return TextError(f"{path} is damaged ({what}); remove it and start the same run again")


class SampleWriter:
    """Puts samples at the end of a file."""

    def __init__(self, path: Path, head: Head) -> None:
        """Begin a file, or go on with one.

        Raises:
            ExportError: it was begun with other documents, or cannot be written.
            TextError: it is damaged.
        """
        there = read_samples(path)
        self._path, self.samples = path, list[Sample]()
        if there is None:
            self._write(path, to_lines([head]), 0)
            return
        found, size = there
        if found.head != head:
            raise ExportError(
                f"{path} was begun with {found.head.documents} documents of other content or number;"
                " use the same data and --limit as then, or give --out another folder"
            )
        self.samples = list(found.samples)
        self._write(path, b"", size)

    def add(self, samples: Sequence[Sample]) -> None:
        """Put samples at the end, in one piece, and push them to the disk."""
        self._write(self._path, to_lines(samples), None)
        self.samples += samples

    @staticmethod
    def _write(path: Path, content: bytes, size: int | None) -> None:
        append(path, content, size, "the samples before stay: start again to go on")


# --- the manifest


def begin(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of a new folder, or see that a begun one is of the same model and options.

    Raises:
        ExportError: it is not; the message names what differs.
    """
    if not (folder / MANIFEST).exists():
        atomic_write(folder / MANIFEST, as_json(manifest))
        return
    there = read_manifest(folder)
    pairs = [
        *((name, there["model"].get(name), manifest["model"].get(name)) for name in IDENTITY),
        *((name, there["options"].get(name), value) for name, value in manifest["options"].items()),
    ]
    refuse_other(folder, pairs, "use the same model and options as then, or give --out another folder")


def read_manifest(folder: Path) -> dict[str, Any]:
    """What a folder's samples share.

    Raises:
        TextError: it is no folder of samples.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
        if (
            manifest["format"] == FORMAT
            and isinstance(manifest["model"], dict)
            and isinstance(manifest["options"], dict)
        ):
            return dict(manifest)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise TextError(f"{folder} holds no evaluation; give a folder that `python -m evals run --out` wrote")
