"""The folder of a self-distillation: the prompts, the options, and the answers in shards.

    OUT/manifest.json          model, options and prompts of the answers
    OUT/answers-00000.jsonl    the answers to a number of prompts, in their order; written completely or not at all

This module does not know how answers are generated.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.corpus.store import MANIFEST, read_manifest
from data.corpus.store_writer import write_or_compare
from model.atomic_files import atomic_write
from model.errors import MicroStepError, TextError
from model.reading.json_text import parse_json
from model.text.document import Message

if TYPE_CHECKING:
    from model.hub.model_info import ModelInfo

FORMAT = "micro_step answers 1"
SHARD_PROMPTS = 96  # the most that a kill can cost: a minute or two on one core


@dataclass(frozen=True)
class Prompt:
    source: str  # name of its source
    number: int  # its number in the source
    messages: tuple[Message, ...]  # up to and including the last user's turn


@dataclass(frozen=True)
class DistillOptions:
    max_new_tokens: int = 256
    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    seed: int = 0  # seed for sampling
    batch_rows: int | None = None  # number of answers generated in one batch; None: what fits into memory
    shard_prompts: int = SHARD_PROMPTS
    template: tuple[tuple[str, str], ...] | None = None  # arguments of the chat template, as JSON by name
    template_date: str | None = None  # YYYY-MM-DD, the date that the chat template writes

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
    source: str
    number: int
    messages: tuple[Message, ...]  # the prompt's, then the assistant's
    tokens: int  # number of tokens that the model generated, without the one that ends its text
    ended: bool  # False: the answer was truncated, so its end must not be learned
    problem: str | None = None  # why there was nothing to answer; the answer is then empty

    @property
    def text(self) -> str:
        return self.messages[-1].content

    @property
    def empty(self) -> bool:
        """True if it holds nothing but white space."""
        return not self.text.strip()


@dataclass(frozen=True)
class Distilled:
    path: Path
    prompts: int  # prompts to be answered
    answers: int  # finished answers
    tokens: int  # tokens of all answers
    ended: int  # answers that the model ended itself
    empty: int  # answers of nothing but white space, including refused ones
    refused: int  # prompts that could not be answered: too long for the model, or refused by its chat template
    refusal: str | None  # why the first of them could not be answered

    @property
    def complete(self) -> bool:
        return self.answers == self.prompts


def read_distilled(out: Path, allow_incomplete: bool = False) -> Iterator[DistilledAnswer]:
    """Yield the answers in a folder, in the order of the prompts.

    Args:
        out: the folder.
        allow_incomplete: yield the answers of a run that was stopped, up to the first missing shard.
    """
    manifest = _read_manifest(out)
    if manifest is None:
        raise TextError(f"{out} holds no answers; make them with `micro-step data distill`")
    total, size = int(manifest["prompts"]["count"]), int(manifest["options"]["shard_prompts"])
    for number in range(-(-total // size)):
        path = out / shard_name(number)
        if not path.is_file():
            if allow_incomplete and number:
                return
            raise TextError(f"{path} is missing; run the distill command again to resume, or remove {out}")
        answers = _parsed(path)
        if answers is None or len(answers) != min(size, total - number * size):
            raise TextError(f"{path} is damaged; remove it and run the distill command again")
        yield from answers


def count_distilled(out: Path) -> Distilled:
    """Count the answers in a folder, whether or not all are there."""
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
    return f"answers-{number:05d}.jsonl"


# --- the manifest


def manifest_of(facts: ModelInfo, prompts: Sequence[Prompt], options: DistillOptions) -> dict[str, Any]:
    """Return everything that decides the answers."""
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
    manifest = read_manifest(path, FORMAT)
    if manifest is None:
        return None
    try:
        options = manifest["options"]
        counts = manifest["prompts"]["count"], options["shard_prompts"], options["batch_rows"]
        valid = isinstance(manifest["model"], dict) and all(isinstance(n, int) and n > 0 for n in counts)
    except (KeyError, TypeError):
        valid = False
    if not valid:
        raise TextError(f"{path / MANIFEST} is damaged; remove {path} and start again")
    return manifest


def begun_options(path: Path) -> dict[str, Any]:
    """Return the options that the folder was begun with, or an empty dict."""
    manifest = _read_manifest(path)
    return {} if manifest is None else dict(manifest["options"])


def begin(path: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest of a new folder, or check that a begun one has the same model, prompts and options."""
    write_or_compare(path, manifest, _read_manifest(path), ("prompts", "options"))


# --- shards


def write_shard(out: Path, number: int, answers: Sequence[DistilledAnswer]) -> None:
    """Write a shard."""
    atomic_write(out / shard_name(number), b"".join(_line(answer) for answer in answers))


def _plain(held: Prompt | DistilledAnswer) -> dict[str, Any]:
    """Return the values for JSON; extra values for templates only if there are any."""
    values = dataclasses.asdict(held)
    values["messages"] = [{k: v for k, v in turn.items() if v or k != "extra"} for turn in values["messages"]]
    return values


def _line(answer: DistilledAnswer) -> bytes:
    values = _plain(answer)
    if answer.problem is None:
        del values["problem"]
    return (json.dumps(values, ensure_ascii=False) + "\n").encode()


def _parsed(path: Path) -> list[DistilledAnswer] | None:
    """Return the answers of a shard; None if it is damaged or missing."""
    try:
        lines = [parse_json(line) for line in path.read_bytes().splitlines()]
        return [
            DistilledAnswer(**{**line, "messages": tuple(Message(**turn) for turn in line["messages"])})
            for line in lines
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, TextError):
        return None


def read_shard(out: Path, number: int, prompts: Sequence[Prompt]) -> list[DistilledAnswer] | None:
    """Return the answers of a shard if it exists and belongs to these prompts, else None."""
    answers = _parsed(out / shard_name(number))
    if answers is None:
        return None
    expected = [(prompt.source, prompt.number, prompt.messages) for prompt in prompts]
    actual = [(answer.source, answer.number, answer.messages[:-1]) for answer in answers]
    return answers if expected == actual else None
