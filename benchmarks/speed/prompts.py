"""The prompts that are answered: those of a file, bundled ones, questions of GSM8K, held-out ones of prepared data."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.speed.options import PromptOptions
from benchmarks.texts import read_text
from data.prepared import Prepared
from data.sources.reading import readings
from data.sources.registry import source
from model.errors import TextError
from model.git_lfs import pointer
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode
from trainer.batches.dataset import training_rows

Rows = list[list[int]]  # token ids of each prompt or answer, without padding

QUESTIONS = "gsm8k_test"  # measured on, never trained on
BUNDLED = (
    "Natalia sold clips to 48 of her friends in April, and half as many in May. How many did she sell altogether?",
    "Write a Python function that returns the n-th Fibonacci number, and explain how it works.",
    "Repeat this sentence three times, then say what it is about: the quick brown fox jumps over the lazy dog.",
    "Tell me about the sea.",
)


def prompt_ids(prompt: str, tokenizer: Any) -> list[int]:
    """The ids of a prompt under the tokenizer's chat template, where it has one, BOS included."""
    text = encode(TextInput(Document((Message("user", prompt),)), chat=True), tokenizer, reply=True)
    ids: list[int] = [*text.prefix, *text.ids.tolist()]
    if not ids:
        raise TextError("a prompt is empty; give each some text")
    return ids


def read_prompts(path: Path) -> list[str]:
    if (problem := pointer(path)) is not None:
        raise TextError(f"{path} cannot be read: {problem}")
    prompts = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError:
            raise TextError(f'{path}, line {number} is not JSON; write {{"prompt": ...}} on each line') from None
        if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
            raise TextError(f'{path}, line {number} has no text under "prompt"')
        prompts.append(record["prompt"])
    if not prompts:
        raise TextError(f"{path} holds no prompts")
    return prompts


def gsm8k_questions(tokenizer: Any, count: int, local: Path | None) -> Rows:
    """The ids of the first test questions of GSM8K, as prompts under the chat template."""
    questions = (each.messages[0].content for each in readings(source(QUESTIONS), local) if each.messages is not None)
    return [prompt_ids(text, tokenizer) for text in islice(questions, count)]


def held_out_prompts(prepared: Prepared, name: str, count: int) -> Rows:
    """The ids of held-out prompts of one source of prepared data."""
    rows = training_rows(prepared, None).held_out
    names = [prepared.sources[place] for place in prepared.origin[rows.example]]
    chosen = [i for i in range(len(rows)) if names[i] == name][:count]
    if not chosen and count:
        held_out = ", ".join(sorted(set(names))) or "none"
        raise TextError(f"{prepared.path} holds out no prompts of {name!r}; it does of {held_out}")
    return [rows.prompt(i) for i in chosen]


def mixed(by_source: dict[str, Rows]) -> Rows:
    """Prompts of all sources, in turns by their shares, so that the first n hold as much of each as all do."""
    placed = [((i + 0.5) / len(rows), name, row) for name, rows in by_source.items() for i, row in enumerate(rows)]
    return [row for _, _, row in sorted(placed, key=lambda each: each[:2])]


def find_prompts(options: PromptOptions, prepared: Prepared | None, tokenizer: Any) -> dict[str, Rows]:
    """The ids of all prompts that are asked for, by the name of their source; the bundled ones if none are."""
    by_source: dict[str, Rows] = {}
    if options.prompts is not None:
        by_source["prompts"] = [prompt_ids(text, tokenizer) for text in read_prompts(options.prompts)]
    if options.questions:
        by_source[QUESTIONS] = gsm8k_questions(tokenizer, options.questions, options.local)
    if prepared is not None:
        by_source[options.source] = held_out_prompts(prepared, options.source, options.held_out)
    return by_source or {"bundled": [prompt_ids(text, tokenizer) for text in BUNDLED]}
