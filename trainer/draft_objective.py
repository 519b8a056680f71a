"""The draft objective: a micro decoder learns to go on from the states of a base that stays as it is.

At a position t the base says token t + 1 itself; the micro decoder reads the base's states at t and that token, and
learns the M - 1 tokens after it. No base runs: its states were stored once (states.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.training_rows import TokenRows
from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.decoding.lossless import with_vocabulary
from model.micro_step.modeling import MicroStepForCausalLM
from trainer.metrics import MetricSums


@dataclass(frozen=True)
class DraftBatch:
    """Q positions."""

    context: Tensor  # [Q, K, d]
    ids: Tensor  # [Q, M] the tokens after each position
    learnt: Tensor  # [Q, M] bool
    teacher: Tensor | None = None  # [Q, M - 1, d] the base's own last states before tokens 2 .. M
    taught: Tensor | None = None  # [Q, M - 1] bool, whether they are known

    @property
    def tokens(self) -> int:
        """Positions: each is one token of the text."""
        return len(self.ids)

    def to(self, device: torch.device) -> DraftBatch:
        """The same on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pinned(self) -> DraftBatch:
        """The same in pinned memory."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> DraftBatch:
        every = (self.context, self.ids, self.learnt, self.teacher, self.taught)
        return DraftBatch(*(None if each is None else change(each) for each in every))  # type: ignore[arg-type]


class DraftObjective(nn.Module):
    """Tokens 2 .. M after each position; words outside the draft vocabulary are not learnt, and count as missed.

    With a teacher, the base's own distribution of each token among the drafted words is learnt too.
    """

    def __init__(self, model: MicroStepForCausalLM) -> None:
        super().__init__()
        self.model = model
        words = torch.tensor(model.config.draft_vocabulary, dtype=torch.long, device=model.device)
        known = torch.full((int(model.config.vocab_size),), -1, dtype=torch.long, device=model.device)
        known[words] = torch.arange(len(words), device=model.device)
        # In a list: no submodule, and no buffer. The cut head is a copy of frozen weights.
        self._head = [with_vocabulary(model.base, words) if len(words) else model.base]
        self._place = known if len(words) else torch.arange(len(known), device=model.device)

    @property
    def head(self) -> PreTrainedModel:
        """The base's head, cut to the words that can be drafted."""
        return self._head[0]

    def place(self, ids: Tensor) -> Tensor:
        """Where words stand among those of the head; -1: they cannot be drafted."""
        return self._place[ids]

    @property
    def drafted(self) -> NDArray[np.bool_]:
        """[V] whether a word can be drafted."""
        return (self._place >= 0).cpu().numpy()

    def forward(self, batch: DraftBatch, averaged_over: tuple[int, int]) -> tuple[Tensor, MetricSums]:
        """See `trainer.objectives.Objective`."""
        model = self.model
        with torch.no_grad():
            e = model.get_input_embeddings()(batch.ids[:, :-1])
        kind = next(model.micro.parameters()).dtype
        states, _ = model.micro(batch.context.to(kind), e.to(kind))  # [Q, M - 1, d]
        learnt, place = batch.learnt[:, 1:], self._place[batch.ids[:, 1:]]
        known = learnt & (place >= 0)
        weight = known / max(1, averaged_over[0])
        teacher, taught = None, None
        if batch.teacher is not None and batch.taught is not None:
            # where the base's state is not known, the micro decoder's own: it is then taught nothing
            taught = known & batch.taught
            teacher = torch.where(taught[..., None], batch.teacher.to(states.dtype), states.detach()).flatten(0, 1)
        told = chunked_lm_head_loss(
            self._head[0],
            states.flatten(0, 1),
            place.clamp(min=0).flatten(),
            weight.flatten(),
            teacher,
            model.config.teacher_weight,
            model.config.token_weight,
        )
        nll, correct, divergence = (each.view_as(known) for each in (told.nll, told.correct, told.divergence))
        tally = MetricSums.of_places(learnt, known, nll, correct, None if taught is None else (taught, divergence))
        return told.loss, tally


def frequent(rows: TokenRows, words: int, needed: list[int]) -> list[int]:
    """The ids of the words that are most frequent among the learnt tokens, `needed` ones included, rising."""
    count = np.bincount(rows.ids[rows.learnt])
    order = [word for word in np.argsort(-count, kind="stable").tolist() if count[word] and word not in needed]
    return sorted({*needed, *order[: words - len(needed)]})


def draft_steps(
    row: NDArray[np.int64], repeat: NDArray[np.int64], size: int, every: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """The positions of every step, without end.

    Args:
        row: [P] row of each position; positions of a row stand side by side.
        repeat: [R] how often a row comes in an epoch.
        size: positions of a step.
        every: take each so manieth position of a row, from a random one on in each epoch.
        seed: of the order.
    """
    first = np.searchsorted(row, np.arange(len(repeat)))
    place = np.arange(len(row)) - first[row]
    epoch = 0
    while True:
        chance = np.random.default_rng([seed, epoch])
        phase = chance.integers(every, size=len(repeat))
        chosen = np.flatnonzero((place + phase[row]) % every == 0)
        order = chance.permutation(np.repeat(chosen, repeat[row[chosen]]))
        size = min(size, len(order))
        for a in range(0, len(order) - size + 1, size):
            yield order[a : a + size]
        epoch += 1
