"""The steps of a run, made ready for the device: on an accelerator by a thread, so that it never waits for reading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from trainer.batches.loader import Feed, StepPart
from trainer.batches.sampler import shard_batch

_AHEAD = 2  # steps that wait ready


@dataclass(frozen=True)
class PreparedStep:
    """One optimizer step of this process."""

    averaged_over: tuple[int, int]
    """Tokens and stops that the losses of all processes are means over."""
    learnt: int
    """Tokens, of all processes."""
    parts: Sequence[StepPart]
    """Of this process, one after the other."""


def ready(
    feed: Feed, first: int, rank: int, world: int, accumulate: int, device: torch.device
) -> Iterator[PreparedStep]:
    """Steps from the one after `first` on, without end.

    Args:
        feed: where they come from.
        first: steps that were done already.
        rank: of this process.
        world: processes.
        accumulate: parts that each takes.
        device: on cuda, parts lie in pinned memory and are read while steps before them are computed.
    """
    chosen = feed.steps()
    for _ in range(first):
        next(chosen)

    def made() -> PreparedStep:
        rows = next(chosen)
        shares = [shard_batch(rows, i * world + rank, world * accumulate) for i in range(accumulate)]
        parts = [feed.part(share) for share in shares]
        if device.type == "cuda":
            parts = [part.pinned() for part in parts]
        return PreparedStep(feed.counts(rows), feed.learnt(rows), parts)

    if device.type != "cuda":
        while True:
            yield made()
    with ThreadPoolExecutor(1) as reader:
        waiting: list[Future[PreparedStep]] = [reader.submit(made) for _ in range(_AHEAD)]
        while True:
            waiting.append(reader.submit(made))
            yield waiting.pop(0).result()
