"""How near the code comes to what weight traffic allows: decoding with segments and drafts that are set from outside.

What a model is sure of depends on its training; how fast the code is should not. So the length of segments, and how
often the base agrees with a draft, are forced, while all that decoding computes is still computed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.speed.batch_log import BatchLog
from benchmarks.speed.compare import check_prompts
from benchmarks.speed.decoders import (
    BASE,
    LOSSLESS,
    MERGED,
    BatchAnswers,
    ComparedModels,
    Decoder,
    plain_answers,
    plain_decoder,
    segmented_answers,
)
from benchmarks.speed.measure import Measurements, batches_of, measure
from benchmarks.speed.options import DecodeOptions
from benchmarks.speed.prompts import Rows
from benchmarks.timing import spread
from model.causal_lm.forward import body, vocabulary
from model.decoding import lossless
from model.decoding.row import LiveRow
from model.decoding.stopping import ProposedToken, StopRule
from model.errors import MicroStepError
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell, silent


@dataclass(frozen=True)
class Weights:
    """Parameters that a pass reads. At batch 1 their traffic bounds the speed (DESIGN: speed)."""

    body: int  # N, of the base's layers
    head: int  # V, of its LM head
    micro: int  # aN, of the micro decoder
    draft_head: int  # V', of the head that drafts

    @classmethod
    def of(cls, model: MicroStepForCausalLM) -> Weights:
        """Of a model; embeddings are looked up, not read through."""
        embedding = model.get_input_embeddings()
        looked_up = {id(p) for p in embedding.parameters()}
        head = sum(p.numel() for p in model.get_output_embeddings().parameters())
        words = len(model.config.draft_vocabulary)
        return cls(
            sum(p.numel() for p in body(model.base).parameters() if id(p) not in looked_up),
            head,
            sum(p.numel() for p in model.micro.parameters()),
            head * words // vocabulary(model.base) if words else head,
        )

    def merged_bound(self, length: float) -> float:
        """Most speed-up with segments of this mean length: k(N + V) / (N + kV + (k - 1)aN)."""
        k = length
        return k * (self.body + self.head) / (self.body + k * self.head + (k - 1) * self.micro)

    def lossless_bound(self, tokens_per_pass: float, drafted: float) -> float:
        """Most speed-up with so many drafted tokens a pass: A / (1 + n(aN + V') / (N + V))."""
        return tokens_per_pass / (1 + drafted * (self.micro + self.draft_head) / (self.body + self.head))


def forced_length(mean: float) -> StopRule:
    """A rule whose segments have this mean length: the two nearest whole ones by turns, evenly spread."""
    if mean < 1:
        raise MicroStepError(f"a segment has at least one token, got a mean length of {mean:g}")
    low = int(mean)

    def keep(offer: ProposedToken, _: Tensor) -> Tensor:
        before, after = (((offer.macro_step + i) * (mean - low) + 1e-9).floor() for i in (0, 1))
        return offer.slot < low + after - before

    return StopRule(f"length {mean:g}", "segments have lengths that were set", keep, early=True)


@contextmanager
def forced_agreement(prompts: Rows, answers: Rows, rate: float, words: int, seed: int = 0) -> Iterator[None]:
    """Let lossless decoding draft the base's known answer at each place with this probability, else another word.

    The micro decoder and its head still compute the draft that is then replaced.
    """
    known = {tuple(prompt): answer for prompt, answer in zip(prompts, answers, strict=True)}
    chance = random.Random(seed)

    class Known(lossless.Drafter):
        """Drafts what it was told."""

        def _next(self, state: Tensor, rows: list[LiveRow], beyond: Rows) -> lossless.DraftedWords:
            offered = super()._next(state, rows, beyond)
            drafted = []
            for row, extra in zip(rows, beyond, strict=True):
                right = known[tuple(row.out.prompt)][len(row.out.ids) + len(extra)]
                drafted.append(right if chance.random() < rate else (right + 1) % words)
            return replace(offered, ids=torch.tensor(drafted, device=offered.ids.device))

    with patch.object(lossless, "Drafter", Known):
        yield


# --- the two studies: the first of the micro_step models beside the base, with answers of exactly T tokens


@dataclass(frozen=True)
class Case:
    forced: dict[str, Any]  # columns of its row
    decoder: Decoder
    bound: Callable[[Measurements], float]  # of its speed-up


def forced_lengths(models: ComparedModels, lengths: Sequence[float]) -> list[Case]:
    """Merged decoding with segments of known mean lengths, in tokens."""
    model = models.micro[0].model
    longest, weights = model.config.max_segment_length, Weights.of(model)
    if not 1 <= min(lengths) <= max(lengths) <= longest:
        raise MicroStepError(f"segments of this model have 1 to {longest} tokens, got mean lengths {list(lengths)}")

    def case(length: float) -> Case:
        def write(batch: Rows, tokens: int) -> BatchAnswers:
            settings, rule = models.settings(tokens, endless=True), forced_length(length)
            return segmented_answers(model, batch, settings, rule=rule, confidence=0.0, verify=False)

        decoder = Decoder(models.base_name, MERGED, f"segments of {length:g} tokens", write)
        return Case({"length": length}, decoder, lambda measured: weights.merged_bound(measured.tokens_per_pass))

    return [case(length) for length in lengths]


def forced_drafts(
    models: ComparedModels, prompts: Rows, rates: Sequence[float], drafts: Sequence[int], options: DecodeOptions
) -> list[Case]:
    """Lossless decoding with drafts of known lengths, in tokens, that agree with the base at known rates, 0 to 1."""
    model = models.micro[0].model
    longest, weights = model.config.max_segment_length - 1, Weights.of(model)
    if not 1 <= min(drafts) <= max(drafts) <= longest:
        raise MicroStepError(f"this model drafts 1 to {longest} tokens, got {list(drafts)}")
    check_prompts(models, prompts, options.max_new_tokens)
    order, batches = batches_of(prompts, options.sizes[0][0])
    settings = models.settings(options.max_new_tokens, endless=True)
    answers = [answer for batch in batches for answer in plain_answers(models.base, batch, settings)]
    answered = [prompts[i] for i in order]

    def case(rate: float, n: int) -> Case:
        def write(batch: Rows, tokens: int) -> BatchAnswers:
            fewer = models.settings(tokens, endless=True)
            with forced_agreement(answered, answers, rate, vocabulary(model.base)):
                return segmented_answers(model, batch, fewer, confidence=0.0, verify=True, max_segment_length=n + 1)

        decoder = Decoder(models.base_name, LOSSLESS, f"{n} drafted, {rate:g} agree", write)
        return Case(
            {"rate": rate, "drafts": n},
            decoder,
            lambda measured: weights.lossless_bound(measured.tokens_per_pass, measured.drafted_per_pass),
        )

    return [case(rate, n) for rate in rates for n in drafts]


def forced_study(
    models: ComparedModels,
    prompts: Rows,
    cases: Sequence[Case],
    options: DecodeOptions,
    tell: Tell = silent,
) -> list[dict[str, Any]]:
    """A row a case: its speed beside the base's, and beside the bound."""
    check_prompts(models, prompts, options.max_new_tokens)
    decoders = [plain_decoder(BASE, models.base, models, endless=True), *(case.decoder for case in cases)]
    base, *measured = measure(decoders, prompts, options.sizes[0][0], options, BatchLog(None, {}), tell)
    rows = []
    for case, mine in zip(cases, measured, strict=True):
        bound, speedup = case.bound(mine), mine.faster(base)
        rows.append(
            {
                **case.forced,
                "drafted": mine.drafted_per_pass,
                "identical": float(mine.identical(base).mean()),
                "tokens_per_macro_step": mine.tokens_per_pass,
                "speedup": speedup,
                "bound": bound,
                "of_bound": speedup["median"] / bound,
                "tokens_per_second": spread(mine.rates),
                "base_tokens_per_second": spread(base.rates),
                "parts": mine.parts,
            }
        )
    return rows
