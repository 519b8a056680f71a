"""What the loop reads: for each step the units of it (rows, or stored positions), and parts of these as tensors."""

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
from trainer.batches.sampler import RowBatch
from trainer.draft_objective import DraftBatch, draft_steps
from trainer.recipe import Recipe

Chosen = NDArray[np.int64]


class StepPart(Protocol):
    """A part of a step as tensors."""

    @property
    def tokens(self) -> int:
        """That are read."""
        ...

    def to(self, device: torch.device) -> StepPart:
        """The same on another device."""
        ...

    def pinned(self) -> StepPart:
        """The same in pinned memory, from which a copy to cuda waits for nothing."""
        ...


class Feed(Protocol):
    """Where the loop gets its steps from."""

    def steps(self) -> Iterator[Chosen]:
        """The units of each step, from the first on, without end."""
        ...

    def part(self, chosen: Chosen, held_out: bool = False) -> StepPart:
        """Some units as tensors; of none, something that nothing is learnt of."""
        ...

    def counts(self, chosen: Chosen) -> tuple[int, int]:
        """Tokens and stops that the loss of a step is a mean over."""
        ...

    def learnt(self, chosen: Chosen) -> int:
        """Learnt tokens of a step."""
        ...

    def held_out(self) -> Sequence[Chosen]:
        """Batches of units that are only measured on."""
        ...


@dataclass(frozen=True)
class RowFeed:
    """Whole rows."""

    recipe: Recipe
    train: TokenRows
    repeat: NDArray[np.int64]
    """[R] how often each row of `train` comes in an epoch."""
    measured: TokenRows
    teacher: tuple[States, States] | None = None
    """Of the rows that are trained and measured on: the states of the base as it was, whose last ones teach."""

    def steps(self) -> Iterator[Chosen]:
        """See `Feed`."""
        return sampler.steps(self.train.lengths, self.repeat, self.recipe.batch.tokens, self.recipe.seed)

    def part(self, chosen: Chosen, held_out: bool = False) -> RowBatch:
        """See `Feed`."""
        part = sampler.batch(self.measured if held_out else self.train, chosen)
        if self.teacher is None:
            return part
        teacher = self.teacher[held_out].of_rows(chosen, part.ids.shape, self.recipe.matches_states)
        return replace(part, teacher=teacher)

    def counts(self, chosen: Chosen) -> tuple[int, int]:
        """See `Feed`."""
        most = self.recipe.segmentation.max_length if self.recipe.objective == "micro_step" else 1
        return sampler.counts(self.train, chosen, most)

    def learnt(self, chosen: Chosen) -> int:
        """See `Feed`."""
        return self.counts(chosen)[0]

    def held_out(self) -> Sequence[Chosen]:
        """See `Feed`."""
        return sampler.held_out_batches(self.measured, self.recipe.batch.tokens, self.recipe.validation.tokens)


@dataclass(frozen=True)
class DraftFeed:
    """Positions with stored states."""

    recipe: Recipe
    train: States
    repeat: NDArray[np.int64]
    """[R] how often each row comes in an epoch."""
    measured: States
    vocabulary: NDArray[np.bool_]
    """[V] the word can be drafted; others are learnt by nobody, and count as missed."""

    def steps(self) -> Iterator[Chosen]:
        """See `Feed`."""
        tokens, every = self.recipe.batch.tokens, self.recipe.draft.every
        return draft_steps(self.train.row, self.repeat, tokens, every, self.recipe.seed)

    def part(self, chosen: Chosen, held_out: bool = False) -> DraftBatch:
        """See `Feed`."""
        states = self.measured if held_out else self.train
        none = not len(chosen)
        chosen, most = np.array([0]) if none else chosen, self.recipe.segmentation.max_length
        context, ids, learnt = states.read(chosen, most)
        teacher, taught = states.last(chosen, most) if self.recipe.teacher else (None, None)
        return DraftBatch(context, ids, torch.zeros_like(learnt) if none else learnt, teacher, taught)

    def counts(self, chosen: Chosen) -> tuple[int, int]:
        """See `Feed`."""
        ids, learnt = self.train.following(chosen, self.recipe.segmentation.max_length)
        return int((learnt & self.vocabulary[ids])[:, 1:].sum()), 0

    def learnt(self, chosen: Chosen) -> int:
        """See `Feed`."""
        _, learnt = self.train.following(chosen, self.recipe.segmentation.max_length)
        return int(learnt[:, 1:].sum())

    def held_out(self) -> Sequence[Chosen]:
        """See `Feed`."""
        n = min(len(self.measured), self.recipe.validation.tokens)
        return [np.arange(a, min(a + self.recipe.batch.tokens, n)) for a in range(0, n, self.recipe.batch.tokens)]


def mean_tokens(feed: Feed, among: int = 50) -> float:
    """Learnt tokens of a step, on average over the first ones."""
    return float(np.mean([feed.learnt(chosen) for chosen, _ in zip(feed.steps(), range(among), strict=False)]))


def tensor_of(values: Sequence[float], device: torch.device) -> Tensor:
    """Numbers on a device, to be added up over processes."""
    return torch.tensor(values, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
