"""Choose the rows of each step: rows of similar lengths together, in a new order every epoch, fixed by the seed.

The choice depends only on the seed and the step, so a run resumes where it was stopped, on any number of processes: a
step's rows are chosen for all processes, and then distributed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.training_rows import TokenRows
from model.errors import MicroStepError

POOL = 32  # batches whose rows are sorted by length together: little padding, but still random batches


@dataclass(frozen=True)
class TensorBatch:
    """Tensors, or None, that go to a device together: a part of a step."""

    @property
    def tokens(self) -> int:
        raise NotImplementedError

    def to(self, device: torch.device) -> Self:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> Self:
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        held = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: change(tensor) for name, tensor in held.items() if tensor is not None})


@dataclass(frozen=True)
class RowBatch(TensorBatch):
    """B rows, padded on the right to N tokens."""

    ids: Tensor  # [B, N]
    mask: Tensor  # [B, N] bool, False at padding
    starts: Tensor  # [B, N] bool, True if the token starts a segment
    labels: Tensor  # [B, N] the ids again, -100 where no loss is taken
    teacher: Tensor | None = None
    """[B, N, d] last states of the unchanged base, or [B, N, K, d] of all context layers; NaN if unknown."""
    teacher_ids: Tensor | None = None  # [B, N, k] the unchanged base's likeliest next tokens
    teacher_probability: Tensor | None = None  # [B, N, k]; NaN if unknown

    @property
    def tokens(self) -> int:
        return int(self.mask.sum())


def steps(lengths: NDArray[np.int64], repeat: NDArray[np.int64], tokens: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of every step, endlessly.

    Args:
        lengths: [R] number of tokens in each row.
        repeat: [R] number of times that each row occurs in an epoch.
        tokens: maximum number of tokens in a step, padding included.
        seed: seed of the order.
    """
    if int(lengths.max()) > tokens:
        raise MicroStepError(
            f"a row has {int(lengths.max()):,} tokens, but a step holds at most {tokens:,}; raise batch.tokens or lower"
            " data.max_tokens"
        )
    every = np.repeat(np.arange(len(lengths)), repeat)
    epoch = 0
    while True:
        chance = np.random.default_rng([seed, epoch])
        order = chance.permutation(every)
        pool = max(1, POOL * tokens // max(1, int(lengths.mean())))
        batches: list[NDArray[np.int64]] = []
        for a in range(0, len(order), pool):
            piece = order[a : a + pool]
            batches += token_batches(piece[np.argsort(lengths[piece], kind="stable")], lengths, tokens)
        for i in chance.permutation(len(batches)):
            yield batches[i]
        epoch += 1


def token_batches(order: NDArray[np.int64], lengths: NDArray[np.int64], tokens: int) -> list[NDArray[np.int64]]:
    """Group rows of rising length into batches of at most `tokens` padded tokens; a longer row is alone."""
    batches, a = [], 0
    while a < len(order):
        b = a + 1
        while b < len(order) and (b + 1 - a) * lengths[order[b]] <= tokens:
            b += 1
        batches.append(order[a:b])
        a = b
    return batches


def shard_batch(chosen: NDArray[np.int64], part: int, parts: int) -> NDArray[np.int64]:
    """Return one of `parts` shares of a batch, which may be empty."""
    return chosen[part::parts]


def batch(rows: TokenRows, chosen: NDArray[np.int64], pad: int = 0) -> RowBatch:
    """Pad some rows on the right.

    Args:
        rows: all rows.
        chosen: [B] indices of rows; if empty, one row is taken without any loss, so every process has work.
        pad: id at padding.
    """
    empty = not len(chosen)
    part = rows.take(np.array([0]) if empty else chosen)
    lengths = part.lengths
    n = int(lengths.max())
    valid = np.arange(n) < lengths[:, None]

    def padded(values: NDArray[np.generic], fill: int | bool) -> Tensor:
        out = np.full(valid.shape, fill, dtype=values.dtype)
        out[valid] = values
        return torch.from_numpy(out)

    loss_mask = np.zeros_like(part.loss_mask) if empty else part.loss_mask
    labels = np.where(loss_mask, part.ids, -100)
    return RowBatch(padded(part.ids, pad), torch.from_numpy(valid), padded(part.starts, False), padded(labels, -100))


def counts(rows: TokenRows, chosen: NDArray[np.int64], max_length: int) -> tuple[int, int]:
    """Count the learned tokens of some rows, and those after which a segment may end or not.

    Segments have at most `max_length` tokens. A row's last token is not counted among the latter, nor is the last one
    that the cap allows.
    """
    part = rows.take(chosen)
    position = np.arange(len(part.ids))
    first = np.zeros(len(part.ids), dtype=bool)
    first[part.offsets[:-1]] = True
    loss_mask = part.loss_mask & ~first
    slot = position - np.maximum.accumulate(np.where(part.starts | first, position, 0))
    last = np.zeros(len(part.ids), dtype=bool)
    last[part.offsets[1:] - 1] = True
    return int(loss_mask.sum()), int((loss_mask & ~last & (slot < max_length - 1)).sum())


def held_out_batches(rows: TokenRows, tokens: int, limit: int) -> Sequence[NDArray[np.int64]]:
    """Return the first rows of at most `limit` tokens in all, in batches of at most `tokens` tokens with padding."""
    lengths = rows.lengths
    taken = np.flatnonzero(np.cumsum(lengths) <= max(limit, int(lengths[0]) if len(lengths) else 0))
    return token_batches(taken[np.argsort(lengths[taken], kind="stable")], lengths, tokens)
