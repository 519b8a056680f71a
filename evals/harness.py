"""Models as lm-evaluation-harness sees them: plain ones through its own class, micro_step ones beside it.

Prompts, tokens, chat templates, truncation and the cutting of texts are the harness's in both cases. What is added is
a record of what each answer cost. A record stands in the order in which the requests were computed; the runner
(run.py) gives batches that the harness does not reorder. Knows nothing about tasks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList

from evals.loglikelihood import Scored, by_base, by_own_segments
from evals.stop_strings import AnswerCriterion, StopStrings, prefix_free_groups
from model.causal_lm.fast_linear import with_fast_linear
from model.causal_lm.finite import FiniteLogits, check_finite
from model.causal_lm.forward import body
from model.causal_lm.kv_cache import growing_cache, keeps_all
from model.causal_lm.padding import equal_lengths, padding_is_bound
from model.decoding.generation_config import end_ids
from model.decoding.shared_prefix import shared_first
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM

Likelihood = Literal["own", "base"]
_Request = tuple[Any, list[int], list[int]]  # the request's texts, ids of the context, ids of the continuation


@dataclass(frozen=True)
class HarnessAnswer:
    """What was written for one prompt, up to the token that ended it."""

    ids: tuple[int, ...]
    starts: tuple[int, ...]  # index of each segment's first token
    probability: tuple[float, ...] | None  # of each token, under whichever part wrote it; None: not kept
    macro_steps: int  # passes of the base
    micro_steps: int  # tokens that the micro decoder offered
    ended: bool  # by an end token or a stop string; False: there was room for no more
    seconds: float  # its share of its batch's time


@dataclass(frozen=True, eq=False)
class Likely:
    """How likely a continuation is."""

    total: float  # nats
    tokens: int
    macro_steps: int  # passes of the base that predicted a token of it
    scored: Scored | None  # token by token, where that was asked for


class RecordedLM(HFLM):  # type: ignore[misc]
    """A plain model, by the harness's own class; keeps what answers and likelihoods cost.

    Args:
        loaded: the model.
        batch_size: rows.
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

    @property
    def ends(self) -> set[int]:
        """The tokens that end an answer."""
        return {*end_ids(self.model), *([] if self.eot_token_id is None else [self.eot_token_id])}

    def scores_of(self, contexts: list[list[int]], continuations: list[list[int]]) -> list[Scored]:
        """Each token of continuations."""
        return by_base(self.model, contexts, continuations)

    def _loglikelihood_tokens(
        self, requests: list[_Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        if not self.per_token:
            said: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
            check_finite(self.model, np.isnan([total for total, _ in said]), of="texts")
            for (_, _, ids), (total, _) in zip(requests, said, strict=True):
                self.likelihoods.append(Likely(total, len(ids), len(ids), None))
            return said
        rows = int(override_bs or self.batch_size)
        order = sorted(range(len(requests)), key=lambda i: -len(requests[i][1]) - len(requests[i][2]))
        found: dict[int, Scored] = {}
        for a in range(0, len(order), rows):
            chosen = order[a : a + rows]
            texts = [fitting(requests[i][1], requests[i][2], self.max_length) for i in chosen]
            scored = self.scores_of([context for context, _ in texts], [said for _, said in texts])
            found.update(zip(chosen, scored, strict=True))
        out = []
        for i, (texts_of, _, _) in enumerate(requests):
            one = found[i]
            self.likelihoods.append(Likely(one.total, len(one.nll), one.macro_steps, one))
            out.append((one.total, one.greedy))
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
        for rows in groups:  # those of other lengths apart, where no mask binds what pads them
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
        """What is written behind each row, in one batch."""
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
            ids, ended = stops.cut(row, self.ends)
            self.answers.append(HarnessAnswer(tuple(ids), tuple(range(len(ids))), None, len(ids), 0, ended, share))
        return new


@register_model("micro_step")
class MicroStepLM(RecordedLM):
    """A micro_step model.

    Args:
        pretrained: a loaded model, or what names one (catalog name, hub id, folder).
        confidence: tau of the rule `confidence`; above 1 the base alone writes and scores.
        likelihood: `own`: log-likelihoods in the model's own segments; `base`: by the base alone (loglikelihood.py).
        batch_size: rows.
        dtype: of the weights, where a name is given.
        device: where a name is given.

    Raises:
        MicroStepError: it is no micro_step model.
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
    ) -> None:
        loaded = pretrained
        if isinstance(loaded, str):
            loaded = load(ModelSpec(loaded, dtype=dtype, device=device or "auto"))
        if not isinstance(loaded.model, MicroStepForCausalLM):
            raise MicroStepError(f"{loaded.facts.name} is no micro_step model; the harness's own class is for it (hf)")
        super().__init__(loaded, batch_size, per_token=True)
        self.confidence, self.likelihood = float(confidence), likelihood

    def scores_of(self, contexts: list[list[int]], continuations: list[list[int]]) -> list[Scored]:
        """Each token of continuations."""
        if self.likelihood == "base":
            return by_base(self.model, contexts, continuations)
        return by_own_segments(self.model, contexts, continuations, self.confidence)

    def _model_generate(self, context: Tensor, max_length: int, stop: list[str], **generation_kwargs: Any) -> Tensor:
        mask = generation_kwargs.pop("attention_mask")
        if not generation_kwargs.get("do_sample"):
            generation_kwargs |= {"do_sample": False}
            generation_kwargs.pop("temperature", None)
        prompts = [row[kept].tolist() for row, kept in zip(context, mask.bool(), strict=True)]
        stops = StopStrings(self.tokenizer, stop)
        new: dict[int, list[int]] = {}
        told: dict[int, HarnessAnswer] = {}
        for group in prefix_free_groups(prompts):
            begun = time.perf_counter()
            done = self.model.generate_segments(
                context[group],
                mask[group],
                rule="confidence",
                confidence=self.confidence,
                max_new_tokens=max_length - context.shape[1],
                stopping_criteria=[AnswerCriterion(stops, [prompts[i] for i in group])],
                **generation_kwargs,
            )
            share = (time.perf_counter() - begun) / len(group)
            for i, row in zip(group, done.rows, strict=True):
                new[i] = row.ids
                told[i] = HarnessAnswer(
                    tuple(row.ids),
                    tuple(row.starts),
                    tuple(row.probability),
                    row.macro_steps,
                    row.micro_steps,
                    row.ended,
                    share,
                )
        self.answers += [told[i] for i in range(len(prompts))]
        return _behind(context, [new[i] for i in range(len(prompts))], self.tokenizer.pad_token_id)


@contextmanager
def _harness_quiet() -> Iterator[None]:
    """Without its warnings that a loaded model was given, which is meant."""
    logger = logging.getLogger("lm_eval")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def fitting(context: Sequence[int], continuation: Sequence[int], most: int) -> tuple[list[int], list[int]]:
    """Context and continuation, the context cut from the left where both and no last token are longer than `most`."""
    room = most + 1 - len(continuation)
    if room < 1:
        raise MicroStepError(f"a continuation has {len(continuation)} tokens, the model's context holds {most}")
    return list(context[-room:]), list(continuation)


def _behind(context: Tensor, new: list[list[int]], pad: int) -> Tensor:
    """[B, P + T] prompts and what was written, padded on the right."""
    out = torch.full((len(new), max(map(len, new))), pad)
    for i, row in enumerate(new):
        out[i, : len(row)] = torch.tensor(row)
    return torch.cat([context, out.to(context.device)], 1)
