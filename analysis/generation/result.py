"""What a generation gives: the answer in segments, the base's own answer beside it, and the figures that follow.

Everything is frozen arrays with their shapes; nothing here runs a model. Seconds are of one run on one machine, all
else comes out the same again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from model.decoding.stopping import RULES, Why
from model.errors import MicroStepError
from model.hub.model_info import ModelInfo
from model.scoring.continuation import Sampling
from model.short_repr import ShortRepr
from model.text.encoding import EncodedText

BASE, DRAFT, MICRO = "base", "draft that the base confirmed", "micro decoder"


@dataclass(frozen=True)
class Decoding:
    """How an answer is written; the base alone follows the same sampling."""

    rule: str = "confidence"  # a name in `model.decoding.stopping.RULES`
    tau: float = 0.8  # above 1 the base alone writes
    max_segment_length: int = 4  # M
    lossless: bool | None = None  # None: what the model was trained for
    max_new_tokens: int = 64
    sampling: Sampling = field(default_factory=Sampling)
    repetition_penalty: float = 1.0  # 1 is none

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise MicroStepError(f"there is no stopping rule {self.rule!r}; there are {', '.join(RULES)}")
        if not (math.isfinite(self.tau) and self.tau >= 0):
            raise MicroStepError(f"tau must be a number from 0 on, got {self.tau}")
        if self.max_segment_length < 1 or self.max_new_tokens < 1:
            raise MicroStepError(
                "segments and answers have at least one token, got"
                f" {self.max_segment_length} and {self.max_new_tokens} at most"
            )
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise MicroStepError(f"the repetition penalty must be more than 0, got {self.repetition_penalty}")

    @property
    def sampled(self) -> bool:
        """Whether tokens are drawn at random."""
        return self.sampling.temperature > 0


@dataclass(frozen=True, repr=False)
class Answer(ShortRepr):
    """T tokens that were written after a prompt, and where they stand in their own text."""

    text: str
    ids: NDArray[np.int64]  # [T]
    start: NDArray[np.int32]  # [T] characters [start, end) of `text`
    end: NDArray[np.int32]  # [T]
    probability: NDArray[np.float32]  # [T] under whoever wrote the token
    nll: NDArray[np.float32]  # [T] nats, under the base reading the answer token by token; NaN in a stopped run
    topk_ids: NDArray[np.int64]  # [T, k] likeliest tokens under whoever wrote the token
    topk_probability: NDArray[np.float32]  # [T, k]
    seconds: NDArray[np.float64]  # [T] when the token was there, the prompt's time included
    total_seconds: float
    rank: NDArray[np.int64] | None = None  # [T] under the base, as `nll`: 1 is its likeliest; None in a stopped run

    def __post_init__(self) -> None:
        one = ("ids", "start", "end", "probability", "nll", "seconds")
        shapes = {name: getattr(self, name).shape for name in one}
        if set(shapes.values()) != {(len(self.ids),)} or len(self.topk_ids) != len(self.ids):
            raise ValueError(f"Answer needs arrays of one length, got {shapes} and topk {self.topk_ids.shape}")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def display(self) -> list[str]:
        """What to show for each token; a split character is shown whole on each of its tokens."""
        return [self.text[a:b] for a, b in zip(self.start.tolist(), self.end.tolist(), strict=True)]

    @property
    def tokens_per_second(self) -> float:
        """Tokens over wall-clock time, the prompt's included."""
        return len(self) / self.total_seconds if self.total_seconds > 0 else math.nan

    @property
    def likeliest(self) -> float:
        """Share of tokens that are the base's likeliest after what stands before them; NaN where it is not known."""
        return float((self.rank == 1).mean()) if self.rank is not None and len(self) else math.nan

    @property
    def mean_nll(self) -> float:
        """Nats a token under the base; NaN where it is not known."""
        return float(self.nll.mean()) if len(self) else math.nan


@dataclass(frozen=True, repr=False)
class GeneratedSegments(ShortRepr):
    """S segments of an answer of T tokens."""

    starts: NDArray[np.int32]  # [S] index of the first token
    why: tuple[Why | None, ...]  # S, why the segment ended; None: it was being written when the run was stopped
    refused_ids: NDArray[np.int64]  # [S] the token that was not kept; -1 where there was none
    refused_probability: NDArray[np.float32]  # [S], NaN where there was none
    tokens: int  # T

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[S] tokens of each."""
        return np.diff(np.append(self.starts, self.tokens)).astype(np.int64)

    @property
    def of_token(self) -> NDArray[np.int64]:
        """[T] the segment of each token, from 0."""
        return np.repeat(np.arange(len(self)), self.lengths)

    @property
    def micro_position(self) -> NDArray[np.int64]:
        """[T] each token's place in its segment; 0 is written by the base."""
        bounds = [*self.starts.tolist(), self.tokens]
        places = [np.arange(b - a) for a, b in pairwise(bounds)]
        return np.concatenate(places).astype(np.int64) if places else np.zeros(0, np.int64)


@dataclass(frozen=True)
class AnswerAgreement:
    """How far an answer is the base's own."""

    first: int | None  # index of the first token that differs; None: there is none
    share: float  # of equal tokens at the same places; NaN with nothing to compare
    tokens: int  # places that were compared

    @property
    def equal(self) -> bool:
        """Token for token the same."""
        return self.first is None


@dataclass(frozen=True, repr=False)
class Generation(ShortRepr):
    """One prompt, answered by a micro_step model and by its base alone."""

    facts: ModelInfo  # `micro_step` is always there
    how: Decoding
    lossless: bool
    prompt: EncodedText
    micro: Answer
    segments: GeneratedSegments
    base: Answer | None  # None in a run that was stopped before
    macro_steps: int  # passes of the base
    micro_steps: int  # tokens that the micro decoder offered
    drafted: int  # of these, shown to the base (lossless)
    accepted: int
    cache_slots: int  # that the base's cache held at the end; 0: not known, in a stopped run
    strings: dict[int, str]  # what ids of the top-k and refused tokens stand for
    notes: tuple[str, ...]
    finished: bool  # False: the run was stopped, and this is what was written until then

    @property
    def untrained(self) -> bool:
        """Whether the modules around the base are as they start."""
        return self.facts.micro_step is not None and self.facts.micro_step.untrained

    @property
    def written_by(self) -> list[str]:
        """T, who wrote each token."""
        other = DRAFT if self.lossless else MICRO
        return [BASE if place == 0 else other for place in self.segments.micro_position.tolist()]

    @property
    def passes_by_then(self) -> NDArray[np.int64]:
        """[T] passes of the base when each token was there; in lossless decoding the next one confirms a draft."""
        segments = self.segments
        return segments.of_token + 1 + (self.lossless & (segments.micro_position > 0))

    @property
    def tokens_per_macro_step(self) -> float:
        """New tokens over passes of the base."""
        return len(self.micro) / self.macro_steps if self.macro_steps else math.nan

    @property
    def cached_tokens(self) -> int:
        """Tokens that the slots of the base's cache stand for: the base alone would need a slot for each."""
        if self.lossless or not len(self.segments):
            return self.cache_slots
        before = len(self.prompt) + len(self.prompt.prefix)
        return before + int(self.segments.starts[-1])  # the last segment is never read again

    @property
    def cache_saved(self) -> float:
        """Share of the cache's slots that merging saved; NaN where it is not known."""
        return 1 - self.cache_slots / self.cached_tokens if self.cache_slots else math.nan

    @property
    def speed_ratio(self) -> float:
        """Tokens per second over the base's own, in these two runs."""
        return self.micro.tokens_per_second / self.base.tokens_per_second if self.base else math.nan

    @property
    def agreement(self) -> AnswerAgreement:
        """With the base's own answer; of a stopped run, as far as both came; nothing where both were drawn."""
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
        """Whether greedy lossless decoding gave another text than the base, which it must not."""
        return self.lossless and not self.how.sampled and self.base is not None and not self.agreement.equal
