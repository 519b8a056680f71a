"""How the next token is chosen, and when an answer ends: transformers' own settings, processors and criteria.

Each row is seen alone: it has processors and a length of its own, and they get its own tokens without padding, whatever
stands beside it in the batch.
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

Allowed = Callable[[int, Tensor], list[int]]  # of a row's number and its tokens: the ids that may follow


@dataclass(frozen=True)
class RowRules:
    """What holds for one row, as if it were alone."""

    processors: LogitsProcessorList
    most: int  # new tokens


def rules_of(
    model: MicroStepPreTrainedModel,
    settings: GenerationConfig,
    rows: Sequence[RowOutput],
    allowed: Allowed | None,
    given: Sequence[Any],
) -> list[RowRules]:
    """The rules of rows.

    Args:
        model: whose settings they are.
        settings: prepared ones; `max_length` and `min_length` count prompt and answer of a row, without padding.
        rows: with their prompts.
        allowed: transformers' `prefix_allowed_tokens_fn`.
        given: processors of the caller's own; called with one row, and with the same tokens more than once.

    Raises:
        MicroStepError: a prompt that leaves no room, or settings that transformers does not take.
    """
    found = []
    for number, row in enumerate(rows):
        read = len(row.prompt)
        most = settings.max_new_tokens
        if most is None:
            most = settings.max_length - read
        if most < 1:
            raise MicroStepError(
                f"a prompt has {read} tokens and max_length is {settings.max_length}, which counts them too; set"
                " max_new_tokens"
            )
        own = copy.copy(settings)
        own.max_length = read + most
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
            raise MicroStepError(f"transformers does not take these settings: {error}") from error
        found.append(RowRules(processors, most))
    return found


class TokenSampler:
    """Chooses tokens for the rows of one run, and says when a row is over.

    Args:
        model: that writes.
        sampled: draw tokens, rather than take the likeliest.
        rows: of the run.
        rules: of each row.
        criteria: where answers end, besides their lengths; transformers' own and the caller's.
        generator: of random numbers; None: torch's global one.
        topk: keep so many likeliest words of each new token.
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
        lengths = [c.max_length for c in criteria if isinstance(c, MaxLengthCriteria)]  # of the caller, instead
        self._most = {
            id(row): min(lengths) - len(row.prompt) if lengths else each.most
            for row, each in zip(rows, rules, strict=True)
        }
        self._processors = {id(row): each.processors for row, each in zip(rows, rules, strict=True)}
        self._times = [c for c in criteria if isinstance(c, MaxTimeCriteria)]
        self.ends = {
            int(token) for c in criteria if isinstance(c, EosTokenCriteria) for token in c.eos_token_id.tolist()
        }
        known = EosTokenCriteria | MaxLengthCriteria | MaxTimeCriteria
        self._others = [c for c in criteria if not isinstance(c, known)]
        self._generator = generator

    def room(self, row: RowOutput) -> int:
        """How many more tokens a row may have."""
        return self._most[id(row)] - len(row.ids)

    def looks_back(self, rows: list[RowOutput]) -> bool:
        """Whether a choice depends on more than the logits."""
        return bool(self._processors[id(rows[0])])

    def processed(self, logits: Tensor, rows: list[RowOutput], beyond: list[list[int]] | None = None) -> Tensor:
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
            self._processors[id(row)](self._history(row, extra, logits.device), logits[i : i + 1].clone())
            for i, (row, extra) in enumerate(zip(rows, more, strict=True))
        ]
        return torch.cat(scores)

    def choose(self, logits: Tensor, rows: list[RowOutput]) -> tuple[Tensor, Tensor]:
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

    def add(self, row: RowOutput, token: int, probability: float, now: float, logits: Tensor) -> Why | None:
        """Put a token at a row's end; why the row is over, if it is.

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
        """[1, p + t] a row's tokens, without padding."""
        return torch.tensor([row.prompt + row.ids + extra], device=device)


def probability_of(logits: Tensor, chosen: Tensor, scores: Tensor | None = None) -> Tensor:
    """[R] softmax probability of chosen [R] under logits [R, V].

    NaN where the logits are not finite, or where the scores [R, V] that the choice was made from hold no possible word.
    """
    p = (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)).exp()
    return p if scores is None or scores is logits else p.where(scores.amax(-1) > -torch.inf, torch.nan)
