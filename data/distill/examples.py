"""Self-distillation of cleaned examples: each response is replaced by the base's own answer to the same prompt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from data.distill.run import Distilled, DistillOptions, Prompt, distill, read_distilled
from data.examples import Example, read_examples, write_examples
from data.ray_pool import RayOptions
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
    cluster: RayOptions | None = None,
) -> Distilled:
    """Let a base answer the prompts of examples, and write them with its answers; an existing run is resumed.

    Plain texts have no prompt and stay unchanged. Examples whose answer is empty are left out.

    Raises:
        TextError: there are no examples, or none that can be answered.
        ExportError: `out` cannot be used, or holds answers to something else.
        TooLarge: there is not enough memory.
    """
    read = list(islice(read_examples(examples), limit))
    prompts = {place: prompt for place, example in enumerate(read) if (prompt := prompt_of(example)) is not None}
    if not prompts:
        raise TextError(f"the examples in {examples} are plain texts without prompts; there is nothing to answer")
    distilled = distill(load_model, list(prompts.values()), out, options, tell, cluster)
    for place, answer in zip(prompts, read_distilled(out), strict=True):
        read[place] = replace(read[place], messages=answer.messages, ended=answer.ended)
    kept = [example for place, example in enumerate(read) if place not in prompts or example.response.strip()]
    if not kept:
        why = f" ({distilled.refusal})" if distilled.refusal is not None else ""
        raise TextError(f"all {distilled.answers:,} answers in {out} are empty{why}; let another model answer")
    write_examples(out, kept)
    return distilled


def prompt_of(example: Example) -> Prompt | None:
    """Return the prompt that the base is to answer; None for a plain text, or if no user asks anything."""
    turns = example.messages
    if turns[-1].role == "assistant":
        turns = turns[:-1]
    if example.plain or not any(turn.role == "user" for turn in turns):
        return None
    return Prompt(example.source, example.number, turns)
