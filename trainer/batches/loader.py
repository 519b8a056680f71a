"""The input of the loop: for each step its units (rows, or stored positions), and parts of these as tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.training_rows import TokenRows
from trainer.batches import sampler
from trainer.batches.hidden_state_cache import States
from trainer.batches.sampler import RowBatch, TensorBatch
from trainer.batches.teacher_cache import TopTokens
from trainer.draft_objective import DraftBatch, draft_steps
from trainer.recipe import Recipe

Chosen = NDArray[np.int64]


class Feed(Protocol):
    """The source of the loop's steps."""

    def steps(self) -> Iterator[Chosen]:
        """Yield the units of each step, from the first one on, endlessly."""
        ...

    def part(self, chosen: Chosen, held_out: bool = False) -> TensorBatch:
        """Return some units as tensors; for no units, a batch without any loss."""
        ...

    def counts(self, chosen: Chosen) -> tuple[int, int]:
        """Return the numbers of tokens and stops that the loss of a step is averaged over."""
        ...

    def loss_tokens(self, chosen: Chosen) -> int:
        """Return the number of learned tokens in a step."""
        ...

    def held_out(self) -> Sequence[Chosen]:
        """Return batches of units that are used for validation only."""
        ...


@dataclass(frozen=True)
class RowFeed:
    recipe: Recipe
    train: TokenRows
    repeat: NDArray[np.int64]  # [R] number of times that each row of `train` occurs in an epoch
    measured: TokenRows
    teacher: tuple[States, States] | tuple[TopTokens, TopTokens] | None = None
    """States of the base, for the rows for training and validation; the last ones are the teacher's. Or its likeliest
    tokens."""

    def steps(self) -> Iterator[Chosen]:
        return sampler.steps(self.train.lengths, self.repeat, self.recipe.batch.tokens, self.recipe.seed)

    def part(self, chosen: Chosen, held_out: bool = False) -> RowBatch:
        part = sampler.batch(self.measured if held_out else self.train, chosen)
        if self.teacher is None:
            return part
        stored = self.teacher[held_out]
        if isinstance(stored, TopTokens):
            ids, probability = stored.of_rows(chosen, part.ids.shape)
            return replace(part, teacher_ids=ids, teacher_probability=probability)
        return replace(part, teacher=stored.of_rows(chosen, part.ids.shape, self.recipe.matches_states))

    def counts(self, chosen: Chosen) -> tuple[int, int]:
        max_length = self.recipe.segmentation.max_length if self.recipe.objective == "micro_step" else 1
        return sampler.counts(self.train, chosen, max_length)

    def loss_tokens(self, chosen: Chosen) -> int:
        return self.counts(chosen)[0]

    def held_out(self) -> Sequence[Chosen]:
        return sampler.held_out_batches(self.measured, self.recipe.batch.tokens, self.recipe.validation.tokens)


@dataclass(frozen=True)
class DraftFeed:
    """Positions with stored states."""

    recipe: Recipe
    train: States
    repeat: NDArray[np.int64]  # [R] number of times that each row occurs in an epoch
    measured: States
    vocabulary: NDArray[np.bool_]
    """[V] bool, True for words that can be drafted; other words are not learned and count as missed."""

    def steps(self) -> Iterator[Chosen]:
        tokens, every = self.recipe.batch.tokens, self.recipe.draft.every
        return draft_steps(self.train.row, self.repeat, tokens, every, self.recipe.seed)

    def part(self, chosen: Chosen, held_out: bool = False) -> DraftBatch:
        states = self.measured if held_out else self.train
        none = not len(chosen)
        chosen, max_length = np.array([0]) if none else chosen, self.recipe.segmentation.max_length
        context, ids, loss_mask = states.read(chosen, max_length)
        teacher, taught = states.last(chosen, max_length) if self.recipe.teacher else (None, None)
        return DraftBatch(context, ids, torch.zeros_like(loss_mask) if none else loss_mask, teacher, taught)

    def counts(self, chosen: Chosen) -> tuple[int, int]:
        ids, loss_mask = self.train.following(chosen, self.recipe.segmentation.max_length)
        return int((loss_mask & self.vocabulary[ids])[:, 1:].sum()), 0

    def loss_tokens(self, chosen: Chosen) -> int:
        _, loss_mask = self.train.following(chosen, self.recipe.segmentation.max_length)
        return int(loss_mask[:, 1:].sum())

    def held_out(self) -> Sequence[Chosen]:
        n = min(len(self.measured), self.recipe.validation.tokens)
        return [np.arange(a, min(a + self.recipe.batch.tokens, n)) for a in range(0, n, self.recipe.batch.tokens)]


def mean_tokens(feed: Feed, among: int = 50) -> float:
    """Return the mean number of learned tokens per step, over the first steps."""
    return float(np.mean([feed.loss_tokens(chosen) for chosen, _ in zip(feed.steps(), range(among), strict=False)]))


def tensor_of(values: Sequence[float], device: torch.device) -> Tensor:
    """Return numbers as a tensor on a device, to be summed over processes."""
    return torch.tensor(values, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
