"""Which rows each step reads: rows of like lengths together, in a new order every epoch, the same for one seed.

A plan is a function of the seed and the step alone, so that a run goes on where it was stopped, on any number of
processes: a step's rows are chosen for all of them, and dealt out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.training_rows import TokenRows
from model.errors import MicroStepError

POOL = 32  # batches whose rows are sorted by length together: little padding, and yet chance companions


@dataclass(frozen=True)
class RowBatch:
    """B rows, padded at the right to N tokens."""

    ids: Tensor  # [B, N]
    mask: Tensor  # [B, N] bool, no padding
    starts: Tensor  # [B, N] bool, the token starts a segment
    labels: Tensor  # [B, N] the ids again, -100 where nothing is learnt
    teacher: Tensor | None = None
    """[B, N, d] the base's own last states, as it was, or [B, N, K, d] of all context layers; NaN where unknown."""

    @property
    def tokens(self) -> int:
        """Without padding."""
        return int(self.mask.sum())

    def to(self, device: torch.device) -> RowBatch:
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> RowBatch:
        """The same in pinned memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> RowBatch:
        every = (self.ids, self.mask, self.starts, self.labels, self.teacher)
        return RowBatch(*(None if each is None else change(each) for each in every))  # type: ignore[arg-type]


def steps(lengths: NDArray[np.int64], repeat: NDArray[np.int64], tokens: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """The rows of every step, without end.

    Args:
        lengths: [R] tokens of each row.
        repeat: [R] how often it comes in an epoch.
        tokens: of a step at most, padding included.
        seed: of the order.

    Raises:
        MicroStepError: a row is longer than a step.
    """
    if int(lengths.max()) > tokens:
        raise MicroStepError(
            f"a row has {int(lengths.max()):,} tokens and a step at most {tokens:,}; raise batch.tokens or lower"
            " data.max_tokens"
        )
    every = np.repeat(np.arange(len(lengths)), repeat)
    epoch = 0
    while True:
        chance = np.random.default_rng([seed, epoch])
        order = chance.permutation(every)
        pool = max(1, POOL * tokens // max(1, int(lengths.mean())))
        found: list[NDArray[np.int64]] = []
        for a in range(0, len(order), pool):
            piece = order[a : a + pool]
            found += cut(piece[np.argsort(lengths[piece], kind="stable")], lengths, tokens)
        for i in chance.permutation(len(found)):
            yield found[i]
        epoch += 1


def cut(order: NDArray[np.int64], lengths: NDArray[np.int64], tokens: int) -> list[NDArray[np.int64]]:
    """Rows that rise in length as batches of at most so many tokens, padding included; a longer row stands alone."""
    found, a = [], 0
    while a < len(order):
        b = a + 1
        while b < len(order) and (b + 1 - a) * lengths[order[b]] <= tokens:
            b += 1
        found.append(order[a:b])
        a = b
    return found


def shard_batch(chosen: NDArray[np.int64], part: int, parts: int) -> NDArray[np.int64]:
    """The share of one of so many parts, which may be none."""
    return chosen[part::parts]


def batch(rows: TokenRows, chosen: NDArray[np.int64], pad: int = 0) -> RowBatch:
    """Pad some rows at the right.

    Args:
        rows: where from.
        chosen: [B] their numbers; none: one row is taken, of which nothing is learnt, so that every process has work.
        pad: id at padding.
    """
    empty = not len(chosen)
    part = rows.take(np.array([0]) if empty else chosen)
    lengths = part.lengths
    n = int(lengths.max())
    there = np.arange(n) < lengths[:, None]

    def padded(values: NDArray[np.generic], fill: int | bool) -> Tensor:
        out = np.full(there.shape, fill, dtype=values.dtype)
        out[there] = values
        return torch.from_numpy(out)

    learnt = np.zeros_like(part.learnt) if empty else part.learnt
    labels = np.where(learnt, part.ids, -100)
    return RowBatch(padded(part.ids, pad), torch.from_numpy(there), padded(part.starts, False), padded(labels, -100))


def counts(rows: TokenRows, chosen: NDArray[np.int64], most: int) -> tuple[int, int]:
    """Learnt tokens of some rows, and those of them after which a segment of at most `most` tokens may end or go on.

    A row's last token is none of the latter, nor is the last that the cap allows.
    """
    part = rows.take(chosen)
    at = np.arange(len(part.ids))
    first = np.zeros(len(part.ids), dtype=bool)
    first[part.offsets[:-1]] = True
    learnt = part.learnt & ~first
    slot = at - np.maximum.accumulate(np.where(part.starts | first, at, 0))
    last = np.zeros(len(part.ids), dtype=bool)
    last[part.offsets[1:] - 1] = True
    return int(learnt.sum()), int((learnt & ~last & (slot < most - 1)).sum())


def held_out_batches(rows: TokenRows, tokens: int, limit: int) -> Sequence[NDArray[np.int64]]:
    """The first rows of at most `limit` tokens in all, as batches of at most `tokens`, padding included."""
    lengths = rows.lengths
    taken = np.flatnonzero(np.cumsum(lengths) <= max(limit, int(lengths[0]) if len(lengths) else 0))
    return cut(taken[np.argsort(lengths[taken], kind="stable")], lengths, tokens)
