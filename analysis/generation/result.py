"""The result of a generation: the answer in segments, the base's own answer, and numbers computed from both.

All arrays are frozen, and nothing here runs a model. Seconds belong to one run on one machine; all else is the same in
every run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.decoding.draft_record import EveryDraft
from model.decoding.stopping import RULES, Why
from model.errors import MicroStepError
from model.hub.model_info import ModelInfo
from model.scoring.scores import Sampling
from model.short_repr import ShortRepr
from model.text.encoding import EncodedText

BASE, DRAFT, MICRO = "base", "draft that the base confirmed", "micro decoder"


@dataclass(frozen=True)
class Decoding:
    """How an answer is decoded. The base alone uses the same sampling."""

    rule: str = "confidence"  # a name in `model.decoding.stopping.RULES`
    tau: float = 0.8  # above 1, the base alone writes
    max_segment_length: int = 4  # M
    lossless: bool | None = None  # None: as the model was trained
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    repetition_penalty: float = 1.0  # 1 means none
    eps: float = 1.0  # below 1, the base's check of drafts is relaxed (`model.decoding.lossless`)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise MicroStepError(f"there is no stopping rule {self.rule!r}; there are {', '.join(RULES)}")
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise MicroStepError(f"tau must be at least 0, got {self.tau}")
        if self.max_segment_length < 1 or self.max_new_tokens < 1:
            raise MicroStepError(
                "segments and answers have at least one token, got"
                f" {self.max_segment_length} and {self.max_new_tokens} at most"
            )
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise MicroStepError(f"the repetition penalty must be more than 0, got {self.repetition_penalty}")

        if not 0 < self.eps <= 1:
            raise MicroStepError(f"eps must be above 0 and at most 1, got {self.eps}")

    @property
    def sampled(self) -> bool:
        """Whether tokens are sampled at random."""
        return self.sampling.temperature > 0


@dataclass(frozen=True, repr=False)
class Answer(ShortRepr):
    """T tokens written after a prompt, and their places in the text of the answer."""

    text: str
    ids: NDArray[np.int64]  # [T]
    start: NDArray[np.int32]  # [T] characters [start, end) of `text`
    end: NDArray[np.int32]  # [T]
    probability: NDArray[np.float32]  # [T] under the model that wrote the token
    nll: NDArray[
        np.float32
    ]  # [T] nats, under the base that reads the answer token by token; NaN if the run was stopped
    topk_ids: NDArray[np.int64]  # [T, k] likeliest tokens under the model that wrote the token
    topk_probability: NDArray[np.float32]  # [T, k]
    seconds: NDArray[np.float64]  # [T] when the token was written, including the time for the prompt
    total_seconds: float
    rank: NDArray[np.int64] | None = (
        None  # [T] rank under the base, 1 for its likeliest token; None if the run was stopped
    )

    def __post_init__(self) -> None:
        one = ("ids", "start", "end", "probability", "nll", "seconds")
        shapes = {name: getattr(self, name).shape for name in one}
        if set(shapes.values()) != {(len(self.ids),)} or len(self.topk_ids) != len(self.ids):
            raise ValueError(f"Answer needs arrays of one length, got {shapes} and topk {self.topk_ids.shape}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def display(self) -> list[str]:
        """The text to show for each token; a split character is shown on each of its tokens."""
        return [self.text[a:b] for a, b in zip(self.start.tolist(), self.end.tolist(), strict=True)]

    @property
    def tokens_per_second(self) -> float:
        """Tokens divided by wall-clock time, including the time for the prompt."""
        return len(self) / self.total_seconds if self.total_seconds > 0 else math.nan

    @property
    def likeliest(self) -> float:
        """Share of tokens that the base finds likeliest at their place; NaN if unknown."""
        return float((self.rank == 1).mean()) if self.rank is not None and len(self) else math.nan

    @property
    def mean_nll(self) -> float:
        """Mean nats per token under the base; NaN if unknown."""
        return float(self.nll.mean()) if len(self) else math.nan


@dataclass(frozen=True, repr=False)
class GeneratedSegments(ShortRepr):
    """S segments of an answer of T tokens."""

    starts: NDArray[np.int32]  # [S] index of the first token
    why: tuple[Why | None, ...]  # S, why the segment ended; None if the run was stopped inside it
    refused_ids: NDArray[np.int64]  # [S] the token that was refused; -1 if there was none
    refused_probability: NDArray[np.float32]  # [S], NaN if there was none
    tokens: int  # T

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[S] the number of tokens of each segment."""
        return np.diff(np.append(self.starts, self.tokens)).astype(np.int64)

    @property
    def of_token(self) -> NDArray[np.int64]:
        """[T] the segment of each token, from 0."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def micro_position(self) -> NDArray[np.int64]:
        """[T] the place of each token in its segment, from 0, which the base writes."""
        bounds = [*self.starts.tolist(), self.tokens]
        places = [np.arange(b - a) for a, b in pairwise(bounds)]
        return np.concatenate(places).astype(np.int64) if places else np.zeros(0, np.int64)


@dataclass(frozen=True)
class AnswerAgreement:
    """How many tokens of an answer equal the base's."""

    first: int | None  # index of the first different token; None if there is none
    share: float  # share of equal tokens at the same places; NaN if nothing can be compared
    tokens: int  # number of places compared

    @property
    def equal(self) -> bool:
        """Whether all tokens are equal."""
        return self.first is None


@dataclass(frozen=True, repr=False)
class Generation(ShortRepr):
    """One prompt, answered by a micro_step model and by its base alone."""

    facts: ModelInfo  # `micro_step` is never None
    how: Decoding
    verified: bool  # whether the base checked each draft
    prompt: EncodedText
    micro: Answer
    segments: GeneratedSegments
    base: Answer | None  # None if the run was stopped before it answered
    macro_steps: int  # passes of the base
    micro_steps: int  # tokens that the micro decoder proposed
    drafted: int  # proposed tokens that the base checked
    accepted: int
    relaxed: int  # accepted tokens that a lossless check refuses
    cache_slots: int  # slots of the base's cache at the end; 0 if unknown, in a stopped run
    strings: dict[int, str]  # the text of top-k and refused token ids
    notes: tuple[str, ...]
    finished: bool  # False if the run was stopped; this is what was written until then
    drafts: EveryDraft | None = None  # after each token, of a finished greedy lossless run

    @property
    def lossless(self) -> bool:
        """Whether the answer is the base's own, or sampled from the base's own distribution."""
        return self.verified and self.how.eps == 1

    @property
    def nll_ratio(self) -> float:
        """Nats per token under the base, divided by those of the base's own answer; NaN if unknown."""
        return self.micro.mean_nll / self.base.mean_nll if self.base and self.base.mean_nll > 0 else math.nan

    @property
    def untrained(self) -> bool:
        """Whether the modules around the base are untrained."""
        return self.facts.micro_step is not None and self.facts.micro_step.untrained

    @property
    def written_by(self) -> list[str]:
        """[T] which model wrote each token."""
        other = DRAFT if self.verified else MICRO
        return [BASE if place == 0 else other for place in self.segments.micro_position.tolist()]

    @property
    def passes_by_then(self) -> NDArray[np.int64]:
        """[T] passes of the base by the time of each token; a draft is confirmed by the next pass."""
        segments = self.segments
        return segments.of_token + 1 + (self.verified & (segments.micro_position > 0))

    @property
    def tokens_per_macro_step(self) -> float:
        """New tokens divided by passes of the base."""
        return len(self.micro) / self.macro_steps if self.macro_steps else math.nan

    @property
    def cached_tokens(self) -> int:
        """Tokens in the base's cache; the base alone would need a slot for each."""
        if self.verified or not len(self.segments):
            return self.cache_slots
        before = len(self.prompt) + len(self.prompt.prefix)
        return before + int(self.segments.starts[-1])  # the last segment is never read

    @property
    def cache_saved(self) -> float:
        """Share of cache slots that merging saved; NaN if unknown."""
        return 1 - self.cache_slots / self.cached_tokens if self.cache_slots else math.nan

    @property
    def speed_ratio(self) -> float:
        """Tokens per second, divided by the base's own in these two runs."""
        return self.micro.tokens_per_second / self.base.tokens_per_second if self.base else math.nan

    @property
    def agreement(self) -> AnswerAgreement:
        """Agreement with the base's own answer, as far as both were written; nothing if both were sampled."""
        if self.base is None or self.how.sampled:
            return AnswerAgreement(None, math.nan, 0)
        a, b = self.micro.ids, self.base.ids
        both = min(len(a), len(b))
        count = max(len(a), len(b)) if self.finished else both
        equal = a[:both] == b[:both]
        first = int(np.argmin(equal)) if not equal.all() else both if count > both else None
        return AnswerAgreement(first, float(equal.sum() / count) if count else math.nan, count)

    @property
    def lossless_failed(self) -> bool:
        """Whether greedy lossless decoding gave a different text than the base, which is an error."""
        return self.lossless and not self.how.sampled and self.base is not None and not self.agreement.equal
