"""Decoding forced to a known course, and what its speed is bounded by.

What a model is sure of depends on its training; how fast the code is should not. So the length of segments, and how
often the base agrees with a draft, can be set from outside, while all that decoding computes is still computed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.decode_ways import Rows
from model.causal_lm.forward import body, vocabulary
from model.decoding import lossless
from model.decoding.output import RowOutput
from model.decoding.stopping import ProposedToken, StopRule
from model.errors import MicroStepError
from model.micro_step.modeling import MicroStepForCausalLM


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
    """A rule whose segments have this mean length: the two nearest whole ones by turns, evenly spread.

    Raises:
        MicroStepError: below 1.
    """
    if mean < 1:
        raise MicroStepError(f"a segment has at least one token, got a mean length of {mean:g}")
    low = int(mean)

    def keep(offer: ProposedToken, _: float) -> Tensor:
        step = offer.macro_step
        extra = int((step + 1) * (mean - low) + 1e-9) - int(step * (mean - low) + 1e-9)
        return torch.full_like(offer.product, offer.slot < low + extra, dtype=torch.bool)

    return StopRule(f"length {mean:g}", "segments have lengths that were set", keep, early=True)


@contextmanager
def forced_agreement(prompts: Rows, answers: Rows, rate: float, words: int, seed: int = 0) -> Iterator[None]:
    """Let lossless decoding draft the base's known answer at each place with this probability, else another word.

    The micro decoder and its head still compute the draft that is then replaced.

    Args:
        prompts: ids of each prompt, without padding.
        answers: the base's answer to each, longer than what is to be written.
        rate: of agreement, 0 to 1.
        words: of the vocabulary.
        seed: of the chance.
    """
    known = {tuple(prompt): answer for prompt, answer in zip(prompts, answers, strict=True)}
    chance = random.Random(seed)

    class Known(lossless._Drafter):
        """Drafts what it was told."""

        def _next(self, state: Tensor, rows: list[RowOutput], beyond: Rows) -> lossless.Offered:
            offered = super()._next(state, rows, beyond)
            told = []
            for row, extra in zip(rows, beyond, strict=True):
                right = known[tuple(row.prompt)][len(row.ids) + len(extra)]
                told.append(right if chance.random() < rate else (right + 1) % words)
            return replace(offered, ids=torch.tensor(told, device=offered.ids.device))

    with patch.object(lossless, "_Drafter", Known):
        yield
