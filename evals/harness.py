"""Models for lm-evaluation-harness: plain models through its own class, micro_step models through a subclass.

In both cases the harness handles prompts, tokens, chat templates, truncation and stop strings. Added here is a record
of the cost of each answer. Records are in the order in which the requests were computed; run.py passes batches that the
harness does not reorder. This module knows nothing about tasks.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList

from evals.loglikelihood import Scored, by_base, by_own_segments
from evals.options import Likelihood
from evals.stop_strings import AnswerCriterion, StopStrings, prefix_free_groups
from model.causal_lm.fast_linear import with_fast_linear
from model.causal_lm.finite import FiniteLogits, check_finite
from model.causal_lm.forward import body
from model.causal_lm.kv_cache import growing_cache, keeps_all
from model.causal_lm.padding import equal_lengths, padding_is_bound
from model.decoding.generation_config import end_ids
from model.decoding.pass_times import MeasuredTimes
from model.decoding.shared_prefix import shared_first
from model.errors import MicroStepError
from model.hub.cache import times_folder
from model.hub.loading import LoadedModel, ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.text.template_process import TemplateRefusal, apply_chat_template

_Request = tuple[Any, list[int], list[int]]  # texts of the request, ids of the context, ids of the continuation


@dataclass(frozen=True)
class HarnessAnswer:
    """The tokens generated for one prompt, up to the one that ended the answer."""

    ids: tuple[int, ...]
    starts: tuple[int, ...]  # index of each segment's first token
    probability: tuple[float, ...] | None  # of each token, under the part that generated it; None: not recorded
    macro_steps: int  # passes of the base
    micro_steps: int  # tokens that the micro decoder proposed
    ended: bool  # by an end token or a stop string; False: the limit was reached
    seconds: float  # its share of its batch's time


@dataclass(frozen=True, eq=False)
class Likely:
    total: float  # nats
    tokens: int
    macro_steps: int  # passes of the base that predicted one of its tokens
    scored: Scored | None  # token by token, if requested


class RecordedLM(HFLM):  # type: ignore[misc]
    """A plain model in the harness's own class; it records the cost of answers and likelihoods.

    Args:
        loaded: the model.
        batch_size: number of rows in a batch.
        per_token: score continuations with `by_base`, token by token, instead of the harness's own way.
    """

    def __init__(self, loaded: LoadedModel, batch_size: int = 8, per_token: bool = False) -> None:
        with _harness_quiet():
            super().__init__(
                with_fast_linear(loaded.model), "causal", tokenizer=loaded.tokenizer, batch_size=batch_size
            )
        self.per_token = per_token
        self.answers: list[HarnessAnswer] = []
        self.likelihoods: list[Likely] = []

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Apply the chat template, under its limits; as in the harness, one that refuses a system prompt gets none."""
        options = {
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": not add_generation_prompt,
            **self.chat_template_args,
        }
        try:
            return apply_chat_template(self.tokenizer, chat_history, **options)
        except TemplateRefusal:
            turns = [turn for turn in chat_history if turn["role"] != "system"]
            return apply_chat_template(self.tokenizer, turns, **options)

    @property
    def ends(self) -> set[int]:
        return {*end_ids(self.model), *([] if self.eot_token_id is None else [self.eot_token_id])}

    def scores_of(self, contexts: list[list[int]], continuations: list[list[int]]) -> list[Scored]:
        """Score each token of continuations."""
        return by_base(self.model, contexts, continuations)

    def _loglikelihood_tokens(
        self, requests: list[_Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if not self.per_token:
            results: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
            check_finite(self.model, np.isnan([total for total, _ in results]), of="texts")
            for (_, _, ids), (total, _) in zip(requests, results, strict=True):
                self.likelihoods.append(Likely(total, len(ids), len(ids), None))
            return results
        rows = int(override_bs or self.batch_size)
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1]) - len(requests[i][2]))
        scored_by_index: dict[int, Scored] = {}
        for a in range(0, len(order), rows):
            chosen = order[a : a + rows]
            texts = [fitting(requests[i][1], requests[i][2], self.max_length) for i in chosen]
            scored = self.scores_of([context for context, _ in texts], [results for _, results in texts])
            scored_by_index.update(zip(chosen, scored, strict=True))
        out = []
        for i, (texts_of, _, _) in enumerate(requests):
            scored_request = scored_by_index[i]
            self.likelihoods.append(
                Likely(scored_request.total, len(scored_request.nll), scored_request.macro_steps, scored_request)
            )
            out.append((scored_request.total, scored_request.greedy))
            if texts_of is not None:
                self.cache_hook.add_partial("loglikelihood", texts_of, out[-1])
        return out

    def _read(self, ids: Tensor, mask: Tensor, position: Tensor, cache: DynamicCache) -> None:
        body(self.model)(
            input_ids=ids, attention_mask=mask, position_ids=position, past_key_values=cache, use_cache=True
        )

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        mask = generation_kwargs.pop("attention_mask")
        every = list(range(len(context)))
        groups = [every] if padding_is_bound(self.model) else equal_lengths(mask.sum(1).tolist())
        room, before = max_length - context.shape[1], self.answers
        new, answers = dict[int, list[int]](), dict[int, HarnessAnswer]()
        for rows in groups:  # one length at a time, if the model does not respect a padding mask
            width = context.shape[1] if len(groups) == 1 else int(mask[rows[0]].sum())
            self.answers = []
            ids, seen = context[rows][:, -width:], mask[rows][:, -width:]
            new |= zip(rows, self._write_rows(ids, seen, width + room, stop, **generation_kwargs), strict=True)
            answers |= zip(rows, self.answers, strict=True)
        self.answers = [*before, *(answers[i] for i in every)]
        return _behind(context, [new[i] for i in every], self.tokenizer.pad_token_id)

    def _write_rows(
        self, context: Tensor, mask: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any
    ) -> list[list[int]]:
        """Return the tokens generated for each row, in one batch."""
        begun = time.perf_counter()
        with torch.inference_mode():
            prompts = shared_first(context, mask, self.model)
            generation_kwargs["attention_mask"] = prompts.mask
            if keeps_all(self.model):
                cache = generation_kwargs["past_key_values"] = growing_cache(self.model.config)
                prompts.read_shared(cache, lambda ids, mask, position: self._read(ids, mask, position, cache))
            watch = generation_kwargs["logits_processor"] = LogitsProcessorList([FiniteLogits(self.model)])
            out: Tensor = super()._model_generate(prompts.ids, max_length, stop, **generation_kwargs)
            watch[0].check()
        share = (time.perf_counter() - begun) / len(out)
        stops = StopStrings(self.tokenizer, stop)
        new: list[list[int]] = out[:, context.shape[1] :].tolist()
        for row in new:
            ids, ended = stops.truncate(row, self.ends)
            self.answers.append(HarnessAnswer(tuple(ids), tuple(range(len(ids))), None, len(ids), 0, ended, share))
        return new


@register_model("micro_step")
class MicroStepLM(RecordedLM):
    """A micro_step model for the harness.

    Args:
        pretrained: a loaded model, or its catalog name, hub id or folder.
        confidence: tau of the rule `confidence`; above 1, only the base generates and scores.
        likelihood: `own`: log-likelihoods in the model's own segments; `base`: by the base alone (loglikelihood.py).
        batch_size: number of rows in a batch.
        dtype: dtype of the weights, if a name is given.
        device: device, if a name is given.
        verify: the base checks each draft; None: what the model was trained for.
        eps: with this check, see `generate_segments`; None: 1, which is lossless.
        by_cost: drafts are as long as the measured times of passes make quickest.
    """

    def __init__(
        self,
        pretrained: str | LoadedModel,
        confidence: float = 0.8,
        likelihood: Likelihood = "own",
        batch_size: int = 8,
        dtype: Any = "auto",
        device: str | None = "auto",
        max_batch_size: int | None = None,
        verify: bool | None = None,
        eps: float | None = None,
        by_cost: bool = False,
    ) -> None:
        loaded = pretrained
        if isinstance(loaded, str):
            loaded = load(ModelSpec(loaded, dtype=dtype, device=device or "auto"))
        if not isinstance(loaded.model, MicroStepForCausalLM):
            raise MicroStepError(f"{loaded.facts.name} is not a micro_step model; use the harness's own class (hf)")
        super().__init__(loaded, batch_size, per_token=True)
        self.confidence, self.likelihood = float(confidence), likelihood
        self.verify = loaded.model.config.decoding == "lossless" if verify is None else verify
        self.eps = 1.0 if eps is None else eps
        if self.eps < 1 and not self.verify:
            raise MicroStepError(f"eps relaxes the base's check of drafts; {loaded.facts.name} needs verify for it")
        if by_cost and not self.verify:
            raise MicroStepError(f"by_cost limits drafts; {loaded.facts.name} makes none without verify")
        self.draft_costs = MeasuredTimes(loaded.model, times_folder()) if by_cost else None

    def scores_of(self, contexts: list[list[int]], continuations: list[list[int]]) -> list[Scored]:
        if self.likelihood == "base" or self.verify:
            return by_base(self.model, contexts, continuations)
        return by_own_segments(self.model, contexts, continuations, self.confidence)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        mask = generation_kwargs.pop("attention_mask")
        if not generation_kwargs.get("do_sample"):
            generation_kwargs |= {"do_sample": False}
            generation_kwargs.pop("temperature", None)
        prompts = [row[real].tolist() for row, real in zip(context, mask.bool(), strict=True)]
        stops = StopStrings(self.tokenizer, stop)
        new: dict[int, list[int]] = {}
        answers: dict[int, HarnessAnswer] = {}
        for group in prefix_free_groups(prompts):
            begun = time.perf_counter()
            done = self.model.generate_segments(
                context[group],
                mask[group],
                rule="confidence",
                confidence=self.confidence,
                verify=self.verify,
                eps=self.eps,
                draft_costs=self.draft_costs,
                max_new_tokens=max_length - context.shape[1],
                stopping_criteria=[AnswerCriterion(stops, [prompts[i] for i in group])],
                **generation_kwargs,
            )
            share = (time.perf_counter() - begun) / len(group)
            for i, row in zip(group, done.rows, strict=True):
                new[i] = row.ids
                answers[i] = HarnessAnswer(
                    tuple(row.ids),
                    tuple(row.starts),
                    tuple(row.probability),
                    row.macro_steps,
                    row.micro_steps,
                    row.ended,
                    share,
                )
        self.answers += [answers[i] for i in range(len(prompts))]
        return _behind(context, [new[i] for i in range(len(prompts))], self.tokenizer.pad_token_id)


@contextmanager
def _harness_quiet() -> Iterator[None]:
    """Silence the harness's warning about a loaded model, which is intended here."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def fitting(context: Sequence[int], continuation: Sequence[int], max_length: int) -> tuple[list[int], list[int]]:
    """Return context and continuation; the context is truncated from the left to fit `max_length` positions.

    The last token is never read, so it needs no position.
    """
    room = max_length + 1 - len(continuation)
    if room < 1:
        raise MicroStepError(
            f"a continuation has {len(continuation)} tokens, but the model's context holds {max_length}"
        )
    return list(context[-room:]), list(continuation)


def _behind(context: Tensor, new: list[list[int]], pad: int) -> Tensor:
    """Return [B, P + T], prompts followed by generated tokens, padded on the right."""
    out = torch.full((len(new), max(map(len, new))), pad)
    for i, row in enumerate(new):
        out[i, : len(row)] = torch.tensor(row)
    return torch.cat([context, out.to(context.device)], 1)
