"""The ways to write an answer that are compared, each as its users would call it, and the prompts that they get.

A way takes a batch of prompts and gives the new ids of each row. Nothing here measures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from model.causal_lm.forward import context_length
from model.causal_lm.padding import left_padded
from model.decoding.generation_config import asked
from model.decoding.output import SegmentedGeneration
from model.errors import TextError, TooLarge
from model.git_lfs import pointer
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode

PROMPTS = (
    "Natalia sold clips to 48 of her friends in April, and half as many in May. How many did she sell altogether?",
    "Write a Python function that returns the n-th Fibonacci number, and explain how it works.",
    "Repeat this sentence three times, then say what it is about: the quick brown fox jumps over the lazy dog.",
    "Tell me about the sea.",
)
LOOKUP = 5  # words that prompt lookup may propose
Rows = list[list[int]]  # the new ids of each row, the end token included


@dataclass(frozen=True)
class Batch:
    """Prompts, left-padded."""

    input_ids: Tensor  # [B, P]
    attention_mask: Tensor  # [B, P]

    @property
    def inputs(self) -> dict[str, Tensor]:
        """As `generate` takes them."""
        return {"input_ids": self.input_ids, "attention_mask": self.attention_mask}

    @property
    def prompts(self) -> Rows:
        """The ids of each prompt, without padding."""
        return [ids[kept].tolist() for ids, kept in zip(self.input_ids, self.attention_mask.bool(), strict=True)]


@dataclass(frozen=True)
class Ways:
    """What all ways share: the base, the model around it, how much is to be written, and where answers end."""

    base: Any
    model: MicroStepForCausalLM
    new_tokens: int
    ends: tuple[int, ...]  # in every way; none: answers have all their tokens
    pad: int

    def plain(self, batch: Batch, **options: Any) -> Rows:
        """Transformers' own greedy `generate`."""
        out = self.base.generate(**batch.inputs, **self._settings, **options)
        return [_until(row, set(self.ends)) for row in out[:, batch.input_ids.shape[1] :].tolist()]

    def segments(self, batch: Batch, **options: Any) -> SegmentedGeneration:
        """The micro_step model's greedy answer."""
        return self.model.generate_segments(**batch.inputs, **self._settings, **options)

    @property
    def _settings(self) -> dict[str, Any]:
        """The same for all, whatever a model's own defaults are."""
        ends = {"eos_token_id": list(self.ends) or None, "pad_token_id": self.pad}
        return asked(max_new_tokens=self.new_tokens, **ends)


@dataclass(frozen=True)
class Rival:
    """A way of transformers' own to write faster."""

    name: str
    computes: str
    write: Callable[[Ways, Batch], Rows]

    def on(self, ways: Ways) -> Callable[[Batch], Rows]:
        """The way, for this base."""
        return lambda batch: self.write(ways, batch)


def _early_exit(ways: Ways, batch: Batch) -> Rows:
    layers = ways.base.config.get_text_config().num_hidden_layers
    return ways.plain(batch, assistant_early_exit=max(1, layers // 2))


RIVALS = (
    Rival(
        "prompt lookup",
        f"generate(prompt_lookup_num_tokens={LOOKUP})",
        lambda ways, batch: ways.plain(batch, prompt_lookup_num_tokens=LOOKUP),
    ),
    Rival("assisted", "generate(assistant_early_exit=L/2): the base's own first half drafts", _early_exit),
)


def assisted_by(name: str, dtype: str, device: str) -> Rival:
    """Assisted generation with a smaller model of the same tokenizer, which is loaded."""
    assistant = load(ModelSpec(name, dtype=cast("Any", dtype), device=device)).model
    return Rival(
        "assisted",
        f"generate(assistant_model={name})",
        lambda ways, batch: ways.plain(batch, assistant_model=assistant),
    )


def batches(prompts: Sequence[str], tokenizer: Any, base: Any, size: int, new_tokens: int) -> list[Batch]:
    """Prompts under the tokenizer's chat template, where it has one, in batches of `size`.

    Raises:
        TextError: there is no prompt, or an empty one.
        TooLarge: prompt and answer do not fit the base's context.
    """
    if not prompts:
        raise TextError("there are no prompts")
    encoded = []
    for prompt in prompts:
        ids = prompt_ids(prompt, tokenizer)
        limit = context_length(base)
        if not ids:
            raise TextError("a prompt is empty; give each some text")
        if limit is not None and len(ids) + new_tokens > limit:
            raise TooLarge(
                f"a prompt of {len(ids)} tokens and {new_tokens} new ones do not fit the context of {limit}; ask for"
                " fewer new tokens"
            )
        encoded.append(ids)
    return [padded(encoded[i : i + size], base.device) for i in range(0, len(encoded), size)]


def read_prompts(path: Path) -> list[str]:
    """The prompts of a .jsonl file, {"prompt": ...} a line.

    Raises:
        TextError: it cannot be read, or a line is something else.
    """
    if (wrong := pointer(path)) is not None:
        raise TextError(f"{path} cannot be read: {wrong}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path} cannot be read as UTF-8 text: {error}") from None
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
        except ValueError:
            raise TextError(f'{path}, line {number} is not JSON; write {{"prompt": ...}} on each line') from None
        if not isinstance(said, dict) or not isinstance(said.get("prompt"), str):
            raise TextError(f'{path}, line {number} has no text under "prompt"')
        found.append(said["prompt"])
    if not found:
        raise TextError(f"{path} holds no prompts")
    return found


def endless(ways: Ways) -> Ways:
    """The same, but no answer ends before it has all its tokens."""
    return replace(ways, ends=())


def padded(rows: Rows, device: torch.device) -> Batch:
    """Prompts of different lengths as one batch."""
    ids, mask = left_padded(rows, rows[0][0])
    return Batch(ids.to(device), mask.to(device))


def prompt_ids(prompt: str, tokenizer: Any) -> list[int]:
    """The ids of a prompt under the tokenizer's chat template, where it has one, BOS included."""
    text = encode(TextInput(Document((Message("user", prompt),)), chat=True), tokenizer, reply=True)
    return [*text.prefix, *text.ids.tolist()]


def _until(ids: list[int], ends: set[int]) -> list[int]:
    """Up to the first end token, it included."""
    at = next((i for i, id_ in enumerate(ids) if id_ in ends), len(ids) - 1)
    return ids[: at + 1]
