"""Self-distillation of cleaned examples: each response is replaced by the base's own answer to the same prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from data.distill.run import Distilled, DistillOptions, Prompt, distill, read_distilled
from data.example import Example
from data.examples import read_examples, write_examples
from model.errors import TextError
from model.progress import Tell, silent

if TYPE_CHECKING:
    from model.hub.loading import LoadedModel


def distill_examples(
    load_model: Callable[[], LoadedModel],
    examples: Path,
    out: Path,
    options: DistillOptions | None = None,
    tell: Tell = silent,
    limit: int | None = None,
    interval: float = 1.0,
) -> Distilled:
    """Let a base answer the prompts of examples, and write them with its answers; a begun folder is gone on with.

    Plain texts have no prompt and stay as they are. Examples whose answer is empty are left out.

    Args:
        load_model: the base.
        examples: folder of the examples.
        out: folder of the answers, and of the examples with them.
        options: how the base answers.
        tell: told about the progress.
        limit: only the first so many examples.
        interval: seconds between two tellings.

    Raises:
        TextError: there are no examples, or none that can be answered.
        ExportError: `out` cannot be used, or holds answers to something else.
        TooLarge: memory does not suffice.
    """
    read = list(islice(read_examples(examples), limit))
    asked = {place: prompt for place, each in enumerate(read) if (prompt := prompt_of(each)) is not None}
    if not asked:
        raise TextError(f"the examples in {examples} are plain texts without prompts; there is nothing to answer")
    found = distill(load_model, list(asked.values()), out, options, tell, interval)
    for place, answer in zip(asked, read_distilled(out), strict=True):
        read[place] = replace(read[place], messages=answer.messages, ended=answer.ended)
    kept = [each for place, each in enumerate(read) if place not in asked or each.response.strip()]
    if not kept:
        why = f" ({found.refusal})" if found.refusal is not None else ""
        raise TextError(f"all {found.answers:,} answers in {out} are empty{why}; let another model answer")
    write_examples(out, kept)
    return found


def prompt_of(example: Example) -> Prompt | None:
    """What the base is to answer; None for a plain text, or where nobody asks anything."""
    turns = example.messages
    if turns[-1].role == "assistant":
        turns = turns[:-1]
    if example.plain or not any(turn.role == "user" for turn in turns):
        return None
    return Prompt(example.source, example.number, turns)
