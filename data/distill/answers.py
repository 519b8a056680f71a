"""The folder of a self-distillation: what was asked, how it was answered, and the answers in shards.

    OUT/manifest.json          model, options and prompts: what the answers are of
    OUT/answers-00000.jsonl    the answers to so many prompts, in their order; there whole or not at all

Knows nothing about how answers are written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus.store import IDENTITY, MANIFEST
from data.corpus.store_writer import refuse_other
from model.atomic_files import as_json, atomic_write
from model.errors import MicroStepError, TextError
from model.text.document import Message

if TYPE_CHECKING:
    from model.hub.model_info import ModelInfo

FORMAT = "micro_step answers 1"
SHARD_PROMPTS = 96  # what a kill costs at most: a minute or two on one core


@dataclass(frozen=True)
class Prompt:
    """What is to be answered."""

    source: str
    """Where it comes from."""
    number: int
    """Its number there."""
    messages: tuple[Message, ...]
    """Up to and including the last user's turn."""


@dataclass(frozen=True)
class DistillOptions:
    """How answers are written."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    seed: int = 0
    """Of sampling."""
    batch_rows: int | None = None
    """Answers that are written at once; None: what memory holds."""
    shard_prompts: int = SHARD_PROMPTS
    template: tuple[tuple[str, str], ...] | None = None
    """Arguments of the chat template, as JSON by name."""
    template_date: str | None = None
    """YYYY-MM-DD that the chat template writes as the day's date."""

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "shard_prompts", "batch_rows"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise MicroStepError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.temperature < float("inf") or not 0 < self.top_p <= 1:
            raise MicroStepError(
                f"temperature must be 0 or more and top_p in (0, 1], got {self.temperature} and {self.top_p}"
            )


@dataclass(frozen=True)
class DistilledAnswer:
    """A prompt with the model's answer."""

    source: str
    number: int
    messages: tuple[Message, ...]  # the prompt's, then the assistant's
    tokens: int  # that the model wrote, without the one that ends its text
    ended: bool  # False: it was cut off, and nothing is to be learnt from where it stops
    problem: str | None = None  # why there was nothing to answer; the answer is then empty

    @property
    def text(self) -> str:
        """What the model wrote."""
        return self.messages[-1].content

    @property
    def empty(self) -> bool:
        """Whether there is nothing but white space in it."""
        return not self.text.strip()


@dataclass(frozen=True)
class Distilled:
    """A folder of answers, counted."""

    path: Path
    prompts: int
    """That are to be answered."""
    answers: int
    """That are there."""
    tokens: int
    """Of all answers."""
    ended: int
    """Answers that the model ended by itself."""
    empty: int
    """Answers of nothing but white space, refused ones included."""
    refused: int
    """Prompts that could not be answered: too long for the model, or refused by its chat template."""
    refusal: str | None
    """Why the first of them could not."""

    @property
    def complete(self) -> bool:
        """Whether every prompt is answered."""
        return self.answers == self.prompts


def read_distilled(out: Path, allow_incomplete: bool = False) -> Iterator[DistilledAnswer]:
    """The answers in a folder, in the order of the prompts.

    Args:
        out: the folder.
        allow_incomplete: give those that are there of a run that was stopped, as far as none is missing.

    Raises:
        TextError: it holds none, is incomplete, or a shard of it is damaged.
    """
    manifest = _read_manifest(out)
    if manifest is None:
        raise TextError(f"{out} holds no answers; make them with `python -m data distill`")
    total, size = int(manifest["prompts"]["count"]), int(manifest["options"]["shard_prompts"])
    for number in range(-(-total // size)):
        path = out / shard_name(number)
        if not path.is_file():
            if allow_incomplete and number:
                return
            raise TextError(f"{path} is missing; start the distill command again to go on, or remove {out}")
        answers = _parsed(path)
        if answers is None or len(answers) != min(size, total - number * size):
            raise TextError(f"{path} is damaged; remove it and start the distill command again")
        yield from answers


def count_distilled(out: Path) -> Distilled:
    """What is in a folder of answers, whether or not all are there.

    Raises:
        TextError: there are none, or they are damaged.
    """
    answers = list(read_distilled(out, allow_incomplete=True))
    manifest = _read_manifest(out) or {}
    problems = [answer.problem for answer in answers if answer.problem is not None]
    return Distilled(
        path=out,
        prompts=int(manifest["prompts"]["count"]),
        answers=len(answers),
        tokens=sum(answer.tokens for answer in answers),
        ended=sum(answer.ended for answer in answers),
        empty=sum(answer.empty for answer in answers),
        refused=len(problems),
        refusal=problems[0] if problems else None,
    )


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"answers-{number:05d}.jsonl"


# --- the manifest


def manifest_of(facts: ModelInfo, prompts: Sequence[Prompt], options: DistillOptions) -> dict[str, Any]:
    """What decides the answers."""
    digest = hashlib.sha256()
    for prompt in prompts:
        digest.update(json.dumps(_plain(prompt), sort_keys=True).encode())
    return {
        "format": FORMAT,
        "model": facts.to_dict(),
        "prompts": {"sha256": digest.hexdigest(), "count": len(prompts)},
        "options": {
            name: value
            for name, value in json.loads(json.dumps(dataclasses.asdict(options))).items()
            if value is not None or not name.startswith("template")
        },
    }


def _read_manifest(path: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise TextError(f"{path / MANIFEST} is not of {FORMAT!r}; give another folder")
    try:
        numbers = (
            manifest["prompts"]["count"],
            manifest["options"]["shard_prompts"],
            manifest["options"]["batch_rows"],
        )
        whole = isinstance(manifest["model"], dict) and all(isinstance(each, int) and each > 0 for each in numbers)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise TextError(f"{path / MANIFEST} is damaged; remove {path} and start again")
    return manifest


def begun_options(path: Path) -> dict[str, Any]:
    """The options that the folder was begun with; none where it was not.

    Raises:
        TextError: the folder is of something else.
    """
    there = _read_manifest(path)
    return {} if there is None else dict(there["options"])


def begin(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a new folder, or see that a begun one is of the same model, prompts and options.

    Raises:
        ExportError: it is not; the message names what differs.
    """
    there = _read_manifest(path)
    if there is None:
        atomic_write(path / MANIFEST, as_json(manifest))
        return
    pairs = [
        *((name, there["model"].get(name), manifest["model"].get(name)) for name in IDENTITY),
        *((f"prompts {name}", there["prompts"].get(name), value) for name, value in manifest["prompts"].items()),
        *((name, there["options"].get(name), value) for name, value in manifest["options"].items()),
    ]
    refuse_other(path, pairs, "use the same model, prompts and options as then, or give another folder")


# --- shards


def write_shard(out: Path, number: int, answers: Sequence[DistilledAnswer]) -> None:
    """Put a shard in its place.

    Raises:
        ExportError: it cannot be written; the folder stays as it was.
    """
    atomic_write(out / shard_name(number), b"".join(_line(answer) for answer in answers))


def _plain(held: Prompt | DistilledAnswer) -> dict[str, Any]:
    """As JSON holds it; what templates are told of a turn only where there is any."""
    values = dataclasses.asdict(held)
    values["messages"] = [{k: v for k, v in turn.items() if v or k != "extra"} for turn in values["messages"]]
    return values


def _line(answer: DistilledAnswer) -> bytes:
    values = _plain(answer)
    if answer.problem is None:
        del values["problem"]
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def _parsed(path: Path) -> list[DistilledAnswer] | None:
    """The answers of a shard; None where it is damaged or not there."""
    try:
        lines = [json.loads(line) for line in path.read_bytes().splitlines()]
        return [
            DistilledAnswer(**{**line, "messages": tuple(Message(**turn) for turn in line["messages"])})
            for line in lines
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, TextError):
        return None


def read_shard(out: Path, number: int, prompts: Sequence[Prompt]) -> list[DistilledAnswer] | None:
    """The answers of a shard that is there and is of these prompts."""
    answers = _parsed(out / shard_name(number))
    if answers is None:
        return None
    asked = [(prompt.source, prompt.number, prompt.messages) for prompt in prompts]
    given = [(answer.source, answer.number, answer.messages[:-1]) for answer in answers]
    return answers if asked == given else None
