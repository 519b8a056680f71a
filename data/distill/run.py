"""Self-distillation: a base model generates answers, so that a model learns to compress its own language.

A shard's text depends only on its prompts, the options and the seed, so a run that was stopped anywhere resumes to the
same answers. Greedy answers in float32 equal those of transformers' `generate`. In bfloat16 the rest of the batch
affects rounding, so where two words are almost equally likely the answer may differ. answers.py describes the folder,
writing.py the generation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from data.corpus.store_writer import writing
from data.distill.answers import (
    Distilled,
    DistilledAnswer,
    DistillOptions,
    Prompt,
    begin,
    begun_options,
    count_distilled,
    manifest_of,
    read_distilled,
    read_shard,
    write_shard,
)
from data.ray_pool import RayItem, RayOptions, require_ray, work_on_ray
from model.errors import TextError
from model.progress import Meter, Tell, silent

if TYPE_CHECKING:
    from model.hub.loading import LoadedModel

__all__ = ["DistillOptions", "Distilled", "DistilledAnswer", "Prompt", "count_distilled", "distill", "read_distilled"]


def distill(
    load_model: Callable[[], LoadedModel],
    prompts: Sequence[Prompt],
    out: Path,
    options: DistillOptions | None = None,
    tell: Tell = silent,
    cluster: RayOptions | None = None,
) -> Distilled:
    """Let a model (of a micro_step model, its base) answer prompts, or resume a run that was stopped.

    Raises:
        ExportError: the folder cannot be used, holds answers to something else, or another process writes to it.
        TextError: there is no prompt.
        TooLarge: there is not enough memory.
        MicroStepError: the cluster of Ray cannot be used, or its actors die again and again.
    """
    from data.distill.writing import AnswerWriter  # torch

    if not prompts:
        raise TextError("there is no prompt to answer")
    options = options or DistillOptions()
    if cluster is not None and cluster.ray:
        require_ray()
    with writing(out):
        writer = AnswerWriter(load_model(), options, begun_options(out))
        begin(out, manifest_of(writer.loaded.facts, prompts, writer.options))
        size = options.shard_prompts
        shards = [prompts[at : at + size] for at in range(0, len(prompts), size)]
        missing = [number for number, shard in enumerate(shards) if read_shard(out, number, shard) is None]
        meter = _AnswerProgress(tell, len(prompts), len(prompts) - sum(len(shards[number]) for number in missing))
        if cluster is None or not cluster.ray:
            for number in missing:
                write_shard(out, number, writer.answer(shards[number], number, meter.add))
        else:
            items = (RayItem(f"shard {number} of {out.name}", (number, shards[number])) for number in missing)
            make = partial(_Answerer, writer.options)
            with closing(work_on_ray(writer.loaded, make, items, cluster, tell)) as finished:
                for item, answers in finished:
                    write_shard(out, item.value[0], answers)
                    meter.add(sum(answer.tokens for answer in answers), len(answers))
        return count_distilled(out)


class _Answerer:
    """Answers one shard of prompts after another, as an actor of Ray."""

    def __init__(self, options: DistillOptions, loaded: LoadedModel) -> None:
        from data.distill.writing import AnswerWriter

        self._writer = AnswerWriter(loaded, options)

    def __call__(self, shard: tuple[int, Sequence[Prompt]]) -> list[DistilledAnswer]:
        number, prompts = shard
        return self._writer.answer(prompts, number, lambda tokens, answers: None)


class _AnswerProgress(Meter):
    """Counts answers and their tokens."""

    def __init__(self, tell: Tell, prompts: int, done: int) -> None:
        super().__init__(done)
        self._tell, self._prompts, self._tokens = tell, prompts, 0

    def add(self, tokens: int, answers: int) -> None:
        """Count tokens and finished answers, and report if it is time."""
        self._tokens += tokens
        self.done += answers
        if self.due():
            rate = f"{self._tokens:,} tokens, {self._tokens / self.seconds:,.0f} tokens/s"
            counted = f"{self.done:,} of {self._prompts:,} answers, {rate}{self.left(self._prompts)}"
            self._tell(counted, self.done / self._prompts)
