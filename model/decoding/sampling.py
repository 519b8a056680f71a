"""Choose the next token and decide when an answer ends, with transformers' own settings, processors and criteria.

Each row is treated alone: it has processors and a length of its own, and they see only its tokens, without padding,
whatever else is in the batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.generation import EosTokenCriteria, GenerationConfig, MaxLengthCriteria, MaxTimeCriteria

from model.causal_lm.finite import not_finite
from model.decoding.output import RowOutput
from model.decoding.stopping import Why
from model.errors import MicroStepError

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

Allowed = Callable[[int, Tensor], list[int]]  # maps a row's number and its tokens to the ids that may follow


@dataclass(frozen=True)
class RowRules:
    """The processors and the length limit of one row."""

    processors: LogitsProcessorList
    max_new_tokens: int


def rules_of(
    model: MicroStepPreTrainedModel,
    settings: GenerationConfig,
    rows: Sequence[RowOutput],
    allowed: Allowed | None,
    given: Sequence[Any],
) -> list[RowRules]:
    """Return the rules of each row; lengths in `settings` count its prompt and answer, without padding."""
    rules = []
    for number, row in enumerate(rows):
        read = len(row.prompt)
        max_new = settings.max_new_tokens
        if max_new is None:
            max_new = settings.max_length - read
        if max_new < 1:
            raise MicroStepError(
                f"a prompt has {read} tokens, which count towards max_length ({settings.max_length}); set"
                " max_new_tokens"
            )
        own = copy.copy(settings)
        own.max_length = read + max_new
        if own.min_new_tokens is not None:
            own.min_length = read + own.min_new_tokens

        def of_row(_: int, ids: Tensor, number: int = number) -> list[int]:
            assert allowed is not None
            return allowed(number, ids)

        ids = torch.tensor([row.prompt], device=model.device)
        try:
            processors = model._get_logits_processor(
                own,
                read,
                ids,
                prefix_allowed_tokens_fn=None if allowed is None else of_row,
                logits_processor=LogitsProcessorList(given),
                device=ids.device,
                model_kwargs={},
            )
        except ValueError as error:
            raise MicroStepError(f"transformers rejects these settings: {error}") from error
        rules.append(RowRules(processors, max_new))
    return rules


class TokenSampler:
    """Chooses tokens for the rows of one run, and says when a row is over.

    Args:
        model: the generating model.
        sampled: sample tokens instead of taking the likeliest.
        rows: rows of the run.
        rules: rules of each row.
        criteria: criteria that end answers besides their lengths, transformers' own and additional ones.
        generator: random number generator; None: torch's global one.
        topk: keep this many likeliest words of each new token.
    """

    def __init__(
        self,
        model: MicroStepPreTrainedModel,
        sampled: bool,
        rows: Sequence[RowOutput],
        rules: Sequence[RowRules],
        criteria: StoppingCriteriaList,
        generator: torch.Generator | None,
        topk: int,
    ) -> None:
        self.model, self.sampled = model, sampled
        self.topk = topk
        lengths = [
            c.max_length for c in criteria if isinstance(c, MaxLengthCriteria)
        ]  # additional ones, which replace the settings'
        self._max_new = {
            id(row): min(lengths) - len(row.prompt) if lengths else rule.max_new_tokens
            for row, rule in zip(rows, rules, strict=True)
        }
        self._processors = {id(row): rule.processors for row, rule in zip(rows, rules, strict=True)}
        self._times = [c for c in criteria if isinstance(c, MaxTimeCriteria)]
        self.ends = {
            int(token) for c in criteria if isinstance(c, EosTokenCriteria) for token in c.eos_token_id.tolist()
        }
        known = EosTokenCriteria | MaxLengthCriteria | MaxTimeCriteria
        self._others = [c for c in criteria if not isinstance(c, known)]
        self._generator = generator

    def room(self, row: RowOutput) -> int:
        return self._max_new[id(row)] - len(row.ids)

    def needs_history(self, rows: list[RowOutput]) -> bool:
        """True if a choice depends on more than the logits."""
        return bool(self._processors[id(rows[0])])

    def processed(self, logits: Tensor, rows: list[RowOutput], beyond: list[list[int]] | None = None) -> Tensor:
        """Return [R, V] scores after the processors and warpers.

        Args:
            logits: [R, V].
            rows: R rows.
            beyond: tokens that follow each row's own.
        """
        if not self.needs_history(rows):
            return logits
        more = beyond or [[] for _ in rows]
        scores = [
            self._processors[id(row)](self._history(row, extra, logits.device), logits[i : i + 1].clone())
            for i, (row, extra) in enumerate(zip(rows, more, strict=True))
        ]
        return torch.cat(scores)

    def choose(self, logits: Tensor, rows: list[RowOutput]) -> tuple[Tensor, Tensor]:
        """Return [R] ids, and the probability [R] of each under the logits themselves, before processors.

        The probability is NaN if there is nothing to choose from; `add` refuses it.
        """
        scores = self.processed(logits, rows)
        chosen = self.pick(scores)
        return chosen, probability_of(logits, chosen, scores)

    def pick(self, scores: Tensor) -> Tensor:
        """Return [R] ids from scores [R, V]: the highest, or sampled."""
        if not self.sampled:
            return scores.argmax(-1)
        return self.sample(scores.softmax(-1))

    def sample(self, probability: Tensor) -> Tensor:
        """Sample [R] ids from distributions [R, V]. One that is NaN gives any id, whose probability is NaN."""
        return torch.multinomial(probability.nan_to_num(nan=1.0), 1, generator=self._generator)[:, 0]

    def uniform(self, *shape: int, device: torch.device) -> Tensor:
        return torch.rand(*shape, generator=self._generator, device=device)

    def add(self, row: RowOutput, token: int, probability: float, now: float, logits: Tensor) -> Why | None:
        """Append a token to a row; return why the row is over, or None.

        Raises:
            NumericalError: the probability is NaN because the logits are not finite.
            MicroStepError: the probability is NaN because the settings leave no token to choose.
        """
        if math.isnan(probability):
            if bool(logits.logsumexp(-1).isfinite()):
                raise MicroStepError(f"the settings forbid every token as new token {len(row.ids) + 1}; loosen them")
            raise not_finite(self.model, f"new token {len(row.ids) + 1} has logits")
        row.add(token, probability, now)
        if self.topk:
            best = logits.softmax(-1).topk(self.topk)
            row.topk.append((best.indices.tolist(), best.values.tolist()))
        row.ended = token in self.ends or self._meets(row, self._others, logits.device)
        if row.ended:
            return "end"
        if self.room(row) <= 0:
            return "limit"
        return "time" if self._meets(row, self._times, logits.device) else None

    def _meets(self, row: RowOutput, criteria: list[Any], device: torch.device) -> bool:
        if not criteria:
            return False
        history = self._history(row, [], device)
        return any(bool(torch.as_tensor(criterion(history, None)).any()) for criterion in criteria)

    def _history(self, row: RowOutput, extra: list[int], device: torch.device) -> Tensor:
        """Return [1, p + t] a row's tokens, without padding."""
        return torch.tensor([row.prompt + row.ids + extra], device=device)


def probability_of(logits: Tensor, chosen: Tensor, scores: Tensor | None = None) -> Tensor:
    """Return the softmax probability [R] of chosen ids [R] under logits [R, V].

    It is NaN if the logits are not finite, or if the scores [R, V] that the choice was made from allow no word.
    """
    p = (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)).exp()
    return p if scores is None or scores is logits else p.where(scores.amax(-1) > -torch.inf, torch.nan)
