"""Choose the next token and decide when an answer ends, with transformers' own settings, processors and criteria.

Each row is treated alone: it has processors and a length of its own, and they see only its tokens, without padding,
whatever else is in the batch.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList, StoppingCriteriaList
from transformers.generation import EosTokenCriteria, GenerationConfig, MaxLengthCriteria, MaxTimeCriteria

from model.causal_lm.finite import not_finite
from model.decoding.row import LiveRow, TokenSettings
from model.decoding.stopping import Why
from model.errors import MicroStepError

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

Allowed = Callable[[int, Tensor], list[int]]  # maps a row's number and its tokens to the ids that may follow


def token_settings(
    model: MicroStepPreTrainedModel,
    settings: GenerationConfig,
    prompts: Sequence[list[int]],
    criteria: StoppingCriteriaList,
    generator: torch.Generator | None = None,
    topk: int = 0,
    allowed: Allowed | None = None,
    given: Sequence[Any] = (),
) -> list[TokenSettings]:
    """Return the settings of each row; lengths in `settings` count its prompt and answer, without padding.

    Args:
        model: the generating model.
        settings: transformers' settings, prepared.
        prompts: ids of each row, without padding.
        criteria: criteria that end answers besides their lengths, transformers' own and additional ones.
        generator: random number generator of all rows; None: torch's global one.
        topk: keep this many likeliest words of each new token.
        allowed: which ids may follow.
        given: additional processors.
    """
    lengths = [c.max_length for c in criteria if isinstance(c, MaxLengthCriteria)]  # they replace the settings'
    ends = {int(token) for c in criteria if isinstance(c, EosTokenCriteria) for token in c.eos_token_id.tolist()}
    known = EosTokenCriteria | MaxLengthCriteria | MaxTimeCriteria
    rows = []
    for number, prompt in enumerate(prompts):
        read = len(prompt)
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

        ids = torch.tensor([prompt], device=model.device)
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
        rows.append(
            TokenSettings(
                processors,
                min(lengths) - read if lengths else max_new,
                frozenset(ends),
                tuple(c for c in criteria if isinstance(c, MaxTimeCriteria)),
                tuple(c for c in criteria if not isinstance(c, known)),
                bool(settings.do_sample),
                generator,
                topk,
            )
        )
    return rows


def needs_history(rows: Sequence[LiveRow]) -> bool:
    """True if a choice depends on more than the logits."""
    return any(row.tokens.processors for row in rows)


def any_sampled(rows: Sequence[LiveRow]) -> bool:
    return any(row.tokens.sampled for row in rows)


def processed(logits: Tensor, rows: Sequence[LiveRow], beyond: list[list[int]] | None = None) -> Tensor:
    """Return [R, V] scores after the processors and warpers.

    Args:
        logits: [R, V].
        rows: R rows.
        beyond: tokens that follow each row's own.
    """
    if not needs_history(rows):
        return logits
    more = beyond or [[] for _ in rows]
    scores = [
        row.tokens.processors(_history(row, extra, logits.device), logits[i : i + 1].clone())
        if row.tokens.processors
        else logits[i : i + 1]
        for i, (row, extra) in enumerate(zip(rows, more, strict=True))
    ]
    return torch.cat(scores)


def choose(logits: Tensor, rows: Sequence[LiveRow]) -> tuple[Tensor, Tensor]:
    """Return [R] ids, and the probability [R] of each under the logits themselves, before processors.

    The probability is NaN if there is nothing to choose from; `append` refuses it.
    """
    scores = processed(logits, rows)
    chosen = pick(scores, rows)
    return chosen, probability_of(logits, chosen, scores)


def pick(scores: Tensor, rows: Sequence[LiveRow]) -> Tensor:
    """Return [R] ids from scores [R, V]: the highest, or sampled."""
    return sample(scores.softmax(-1), rows, scores.argmax(-1)) if any_sampled(rows) else scores.argmax(-1)


def sample(probability: Tensor, rows: Sequence[LiveRow], greedy: Tensor) -> Tensor:
    """Sample ids from distributions [R, V]; rows that are not sampled keep their `greedy` ones. Returns [R] ids.

    A distribution that is NaN gives any id, whose probability is NaN.
    """
    probability = probability.nan_to_num(nan=1.0)
    groups = _by_generator(rows)
    if len(groups) == 1 and len(groups[0][1]) == len(rows):
        return torch.multinomial(probability, 1, generator=groups[0][0])[:, 0]
    chosen = greedy.clone()
    for generator, at in groups:
        chosen[at] = torch.multinomial(probability[at], 1, generator=generator)[:, 0]
    return chosen


def uniform(rows: Sequence[LiveRow], drawn: Tensor) -> Tensor:
    """Return [R] numbers in [0, 1) for the sampled rows of `drawn`, [R] bool; the others draw none and get 0."""
    out = torch.zeros(len(rows), device=drawn.device)
    wanted = drawn.tolist()
    for generator, group in _by_generator(rows):
        at = [i for i in group if wanted[i]]
        out[at] = torch.rand(len(at), generator=generator, device=drawn.device)
    return out


def _by_generator(rows: Sequence[LiveRow]) -> list[tuple[torch.Generator | None, list[int]]]:
    """Return each generator and the indices of the sampled rows that draw from it."""
    groups: dict[int, tuple[torch.Generator | None, list[int]]] = {}
    for i, row in enumerate(rows):
        if row.tokens.sampled:
            groups.setdefault(id(row.tokens.generator), (row.tokens.generator, []))[1].append(i)
    return list(groups.values())


def append(
    model: MicroStepPreTrainedModel, row: LiveRow, token: int, probability: float, now: float, logits: Tensor
) -> Why | None:
    """Append a token to a row; return why the row is over, or None.

    A probability that is NaN ends the row with an error: NumericalError if the logits are not finite, else a
    MicroStepError, because the settings leave no token to choose.
    """
    out, how = row.out, row.tokens
    if math.isnan(probability):
        number = len(out.ids) + 1
        row.error = (
            MicroStepError(f"the settings forbid every token as new token {number}; loosen them")
            if bool(logits.logsumexp(-1).isfinite())
            else not_finite(model, f"new token {number} has logits")
        )
        return "end"
    out.add(token, probability, now)
    if how.topk:
        best = logits.softmax(-1).topk(how.topk)
        out.topk.append((best.indices.tolist(), best.values.tolist()))
    out.ended = token in how.ends or _meets(row, how.others, logits.device)
    if out.ended:
        return "end"
    if row.room <= 0:
        return "limit"
    return "time" if _meets(row, how.times, logits.device) else None


def _meets(row: LiveRow, criteria: Sequence[Any], device: torch.device) -> bool:
    if not criteria:
        return False
    history = _history(row, [], device)
    return any(bool(torch.as_tensor(criterion(history, None)).any()) for criterion in criteria)


def _history(row: LiveRow, extra: list[int], device: torch.device) -> Tensor:
    """Return [1, p + t] a row's tokens, without padding."""
    return torch.tensor([row.out.prompt + row.out.ids + extra], device=device)


def probability_of(logits: Tensor, chosen: Tensor, scores: Tensor | None = None) -> Tensor:
    """Return the softmax probability [R] of chosen ids [R] under logits [R, V].

    It is NaN if the logits are not finite, or if the scores [R, V] that the choice was made from allow no word.
    """
    p = (logits.gather(1, chosen[:, None])[:, 0] - logits.logsumexp(-1)).exp()
    return p if scores is None or scores is logits else p.where(scores.amax(-1) > -torch.inf, torch.nan)
