"""The draft objective: a micro decoder learns to continue from the states of a frozen base.

At a position t the base predicts token t + 1 itself; the micro decoder reads the base's states at t and that token, and
learns the M - 1 tokens after it. No base runs: its states were stored once (hidden_state_cache.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.training_rows import TokenRows
from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.decoding.lossless import draft_head
from model.micro_step.modeling import MicroStepForCausalLM
from trainer.batches.sampler import TensorBatch
from trainer.metrics import MetricSums


@dataclass(frozen=True)
class DraftBatch(TensorBatch):
    context: Tensor  # [Q, K, d]
    ids: Tensor  # [Q, M] the tokens after each position
    loss_mask: Tensor  # [Q, M] bool, tokens in the loss
    teacher: Tensor | None = None  # [Q, M - 1, d] the base's own last states before tokens 2 .. M
    taught: Tensor | None = None  # [Q, M - 1] bool, whether these states are known

    @property
    def tokens(self) -> int:
        return len(self.ids)


class DraftObjective(nn.Module):
    """The loss of tokens 2 .. M after each position; words outside the draft vocabulary count as missed.

    With a teacher, the base's own distribution over the drafted words is a second target.
    """

    def __init__(self, model: MicroStepForCausalLM) -> None:
        super().__init__()
        self.model = model
        words = torch.tensor(model.config.draft_vocabulary, dtype=torch.long, device=model.device)
        known = torch.full((int(model.config.vocab_size),), -1, dtype=torch.long, device=model.device)
        known[words] = torch.arange(len(words), device=model.device)
        # In a list, so that it is neither a submodule nor a buffer. The reduced head is a copy of frozen weights.
        self._head = [draft_head(model)]
        self._place = known if len(words) else torch.arange(len(known), device=model.device)

    @property
    def head(self) -> PreTrainedModel:
        """The base's head, reduced to the words that can be drafted."""
        return self._head[0]

    def place(self, ids: Tensor) -> Tensor:
        """Return the indices of words in the head; -1 for words that cannot be drafted."""
        return self._place[ids]

    @property
    def drafted(self) -> NDArray[np.bool_]:
        """[V] bool, True for words that can be drafted."""
        return (self._place >= 0).cpu().numpy()

    def forward(self, batch: DraftBatch, averaged_over: tuple[int, int]) -> tuple[Tensor, MetricSums]:
        model = self.model
        with torch.no_grad():
            embeds = model.get_input_embeddings()(batch.ids[:, :-1])
        kind = next(model.micro.parameters()).dtype
        states, _ = model.micro(batch.context.to(kind), embeds.to(kind))  # [Q, M - 1, d]
        loss_mask, place = batch.loss_mask[:, 1:], self._place[batch.ids[:, 1:]]
        known = loss_mask & (place >= 0)
        weight = known / max(1, averaged_over[0])
        teacher, taught = None, None
        if batch.teacher is not None and batch.taught is not None:
            # if the base's state is unknown, the micro decoder's own is used, which teaches nothing
            taught = known & batch.taught
            teacher = torch.where(taught[..., None], batch.teacher.to(states.dtype), states.detach()).flatten(0, 1)
        head = chunked_lm_head_loss(
            self._head[0],
            states.flatten(0, 1),
            place.clamp(min=0).flatten(),
            weight.flatten(),
            teacher,
            model.config.teacher_weight,
            model.config.token_weight,
        )
        nll, correct, divergence = (value.view_as(known) for value in (head.nll, head.correct, head.divergence))
        tally = MetricSums.of_places(loss_mask, known, nll, correct, None if taught is None else (taught, divergence))
        return head.loss, tally


def frequent(rows: TokenRows, words: int, needed: list[int]) -> list[int]:
    """Return the ids of the most frequent learned words, including `needed` ones, in rising order."""
    count = np.bincount(rows.ids[rows.loss_mask])
    order = [word for word in np.argsort(-count, kind="stable").tolist() if count[word] and word not in needed]
    return sorted({*needed, *order[: words - len(needed)]})


def draft_steps(
    row: NDArray[np.int64], repeat: NDArray[np.int64], size: int, every: int, seed: int
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of every step, endlessly.

    Args:
        row: [P] row of each position; positions of a row are contiguous.
        repeat: [R] number of times that a row occurs in an epoch.
        size: number of positions per step.
        every: use every n-th position of a row, with a random offset in each epoch.
        seed: seed of the order.
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
