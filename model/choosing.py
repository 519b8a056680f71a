"""How the next token is chosen, and when an answer ends: transformers' own settings, processors and criteria.

Each row is seen alone: it has processors of its own, which get its own tokens without padding, whatever stands beside
it in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel, StoppingCriteriaList
from transformers.generation import EosTokenCriteria, GenerationConfig, MaxLengthCriteria

from model.errors import MicroStepError
from model.finite import not_finite
from model.written import Written


class Chooser:
    """Chooses tokens for the rows of one run of a model."""

    def __init__(
        self,
        model: PreTrainedModel,
        settings: GenerationConfig,
        processors: Callable[[list[int]], LogitsProcessorList],
        criteria: StoppingCriteriaList,
        most: int,
        generator: torch.Generator | None,
        topk: int,
    ) -> None:
        if settings.num_beams != 1:
            raise MicroStepError("segments are decoded greedily or sampled; num_beams must be 1")
        self.model = model
        self.sampled = bool(settings.do_sample)
        self.most = most  # new tokens of a row
        self.topk = topk
        self._processors = processors
        self._of_row: dict[int, LogitsProcessorList] = {}
        self._others = [c for c in criteria if not isinstance(c, EosTokenCriteria | MaxLengthCriteria)]
        end = settings.eos_token_id
        self._ends = set() if end is None else set(end if isinstance(end, list) else [end])
        self._generator = generator

    @property
    def any_end(self) -> int:
        """An id that ends an answer; 0 if there is none."""
        return min(self._ends, default=0)

    def looks_back(self, rows: list[Written]) -> bool:
        """Whether a choice depends on more than the logits."""
        return bool(self._processors_of(rows[0]))

    def processed(self, logits: Tensor, rows: list[Written], beyond: list[list[int]] | None = None) -> Tensor:
        """[R, V] scores after the processors and warpers.

        Args:
            logits: [R, V].
            rows: R rows.
            beyond: tokens that follow each row's own.
        """
        if not self.looks_back(rows):
            return logits
        more = beyond or [[] for _ in rows]
        scores = [
            self._processors_of(row)(self._history(row, extra, logits.device), logits[i : i + 1].clone())
            for i, (row, extra) in enumerate(zip(rows, more, strict=True))
        ]
        return torch.cat(scores)

    def choose(self, logits: Tensor, rows: list[Written]) -> tuple[Tensor, Tensor]:
        """[R] ids, and [R] the probability of each under the logits themselves, before processors.

        It is NaN where there is nothing to choose from, which `add` refuses.
        """
        scores = self.processed(logits, rows)
        chosen = self.pick(scores)
        return chosen, probability_of(logits, chosen, scores)

    def pick(self, scores: Tensor) -> Tensor:
        """[R] ids from scores [R, V]: the highest, or sampled."""
        if not self.sampled:
            return scores.argmax(-1)
        return self.sample(scores.softmax(-1))

    def sample(self, probability: Tensor) -> Tensor:
        """[R] ids from distributions [R, V]; any id from one that is NaN, which the id's probability then is, too."""
        return torch.multinomial(probability.nan_to_num(nan=1.0), 1, generator=self._generator)[:, 0]

    def uniform(self, *shape: int, device: torch.device) -> Tensor:
        """Random numbers from 0 to 1."""
        return torch.rand(*shape, generator=self._generator, device=device)

    def add(self, row: Written, token: int, probability: float, now: float, logits: Tensor) -> bool:
        """Put a token at a row's end; whether the row is over.

        Raises:
            NumericalError: its probability is NaN, since the logits are not finite.
            MicroStepError: its probability is NaN, since the settings leave no token to choose.
        """
        if math.isnan(probability):
            if bool(logits.logsumexp(-1).isfinite()):
                raise MicroStepError(f"the settings forbid every token as new token {len(row.ids) + 1}; loosen them")
            raise not_finite(self.model, f"new token {len(row.ids) + 1} has logits")
        row.add(token, probability, now)
        if self.topk:
            best = logits.softmax(-1).topk(self.topk)
            row.topk.append((best.indices.tolist(), best.values.tolist()))
        row.ended = token in self._ends or self._other_end(row, logits.device)
        return row.ended or len(row.ids) >= self.most

    def _other_end(self, row: Written, device: torch.device) -> bool:
        if not self._others:
            return False
        history = self._history(row, [], device)
        return any(bool(torch.as_tensor(criterion(history, None)).any()) for criterion in self._others)

    def _processors_of(self, row: Written) -> LogitsProcessorList:
        if id(row) not in self._of_row:
            self._of_row[id(row)] = self._processors(row.prompt)
        return self._of_row[id(row)]

    def _history(self, row: Written, extra: list[int], device: torch.device) -> Tensor:
        """[1, p + t] a row's tokens, without padding."""
        return torch.tensor([row.prompt + row.ids + extra], device=device)


def probability_of(logits: Tensor, chosen: Tensor, scores: Tensor | None = None) -> Tensor:
    """[R] softmax probability of chosen [R] under logits [R, V].

    NaN where the logits are not finite, or where the scores [R, V] that the choice was made from hold no possible word.
    """
    p = (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)).exp()
    return p if scores is None or scores is logits else p.where(scores.amax(-1) > -torch.inf, torch.nan)
