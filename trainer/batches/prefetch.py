"""The steps of a run, prepared for the device: on an accelerator by a thread, so that it never waits for input."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from trainer.batches.loader import Feed
from trainer.batches.sampler import TensorBatch, shard_batch

_AHEAD = 2  # number of steps kept ready


@dataclass(frozen=True)
class PreparedStep:
    averaged_over: tuple[int, int]  # numbers of tokens and stops that the losses of all processes are averaged over
    loss_tokens: int  # learned tokens of all processes
    parts: Sequence[TensorBatch]  # the parts of this process, in their order


def prepared_steps(
    feed: Feed, first: int, rank: int, world: int, accumulate: int, device: torch.device
) -> Iterator[PreparedStep]:
    """Yield steps from the one after `first` on, endlessly."""
    chosen = feed.steps()
    for _ in range(first):
        next(chosen)

    def prepare() -> PreparedStep:
        rows = next(chosen)
        shares = [shard_batch(rows, i * world + rank, world * accumulate) for i in range(accumulate)]
        parts = [feed.part(share) for share in shares]
        if device.type == "cuda":
            parts = [part.pinned() for part in parts]
        return PreparedStep(feed.counts(rows), feed.loss_tokens(rows), parts)

    if device.type != "cuda":
        while True:
            yield prepare()
    with ThreadPoolExecutor(1) as reader:
        waiting: list[Future[PreparedStep]] = [reader.submit(prepare) for _ in range(_AHEAD)]
        while True:
            waiting.append(reader.submit(prepare))
            yield waiting.pop(0).result()
