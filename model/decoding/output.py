"""The result of a generation: tokens, segments, probabilities, why each segment ended, and how long it took."""

import time
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from model.decoding.stopping import Why
from model.short_repr import ShortRepr


@dataclass
class RowOutput:
    """The output of one row so far; it grows during a run."""

    prompt: list[int]  # without padding
    ids: list[int] = field(default_factory=list)  # T new tokens
    probability: list[float] = field(default_factory=list)  # T, under the part of the model that wrote the token
    seconds: list[float] = field(default_factory=list)  # T, time of each token since the start of the run
    starts: list[int] = field(default_factory=list)  # S, index of each segment's first token
    why: list[Why] = field(default_factory=list)  # S, why the segment ended
    refused: list[tuple[int, float] | None] = field(default_factory=list)
    """S, the rejected token and its probability under the part that rejected it: the micro decoder if a rule did, the
    base if it disagreed; both before processors and temperature."""
    topk: list[tuple[list[int], list[float]]] = field(default_factory=list)  # T, if requested
    macro_steps: int = 0  # base passes that this row was in, the prompt's included
    micro_steps: int = 0  # tokens that the micro decoder proposed
    drafted: int = 0  # proposed tokens that were shown to the base (lossless)
    accepted: int = 0
    relaxed: int = 0  # accepted tokens that only the relaxed check keeps (eps below 1)
    ended_early: int = 0  # segments that the rule or the base ended before a limit did
    cache_slots: int = 0  # slots that the base's cache held of this row when it was over, mean over the layers
    ended: bool = False  # True after an end token or a stop string

    def open(self) -> None:
        self.starts.append(len(self.ids))

    def add(self, token: int, probability: float, now: float) -> None:
        self.ids.append(token)
        self.probability.append(probability)
        self.seconds.append(now)

    def close(self, why: Why, refused: tuple[int, float] | None = None) -> None:
        self.why.append(why)
        self.ended_early += why in ("unsure", "disagreed")
        self.refused.append(refused)

    @property
    def segments(self) -> list[list[int]]:
        bounds = [*self.starts, len(self.ids)]
        return [self.ids[a:b] for a, b in pairwise(bounds)]

    @property
    def tokens_per_macro_step(self) -> float:
        return len(self.ids) / max(1, self.macro_steps)


@dataclass(frozen=True, repr=False)
class SegmentedGeneration(ShortRepr):
    """B continued prompts. `rows` holds them without padding; the tensors are padded on the right to T."""

    sequences: Tensor  # [B, P + T] ids, prompts as given (left padding included), then the new ones and padding
    segment_starts: Tensor  # [B, T] bool
    probability: Tensor  # [B, T] float32, of each new token; NaN at padding
    rows: tuple[RowOutput, ...]
    rule: str
    confidence: float  # tau
    max_segment_length: int  # M
    verified: bool  # the base checked each draft; with eps = 1 the output is the base's
    eps: float  # a drafted token is kept if the base gives it this share of its likeliest token's probability
    cache_slots: int  # slots of the longest row in the base's cache at the end, mean over its layers
    prompt_seconds: float
    macro_seconds: float  # time in the base, after the prompt
    micro_seconds: float  # time in the micro decoder and its head
    total_seconds: float

    @property
    def macro_steps(self) -> int:
        return sum(row.macro_steps for row in self.rows)

    @property
    def new_tokens(self) -> int:
        return sum(len(row.ids) for row in self.rows)

    @property
    def tokens_per_macro_step(self) -> float:
        """New tokens per pass of the base, all rows together."""
        return self.new_tokens / max(1, self.macro_steps)


class Clock:
    """Seconds since the start, and seconds spent in each part."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.spent: dict[str, float] = {}

    def now(self) -> float:
        return time.perf_counter() - self._start

    def to(self, part: str) -> None:
        """Add the time since the last call to a part."""
        now = time.perf_counter()
        self.spent[part] = self.spent.get(part, 0.0) + now - self._last
        self._last = now


def collect_outputs(
    given: Tensor,
    rows: list[RowOutput],
    pad: int,
    clock: Clock,
    rule: str,
    confidence: float,
    max_segment_length: int,
    verified: bool,
    eps: float,
    cache_slots: int,
) -> SegmentedGeneration:
    """Combine the rows of a finished run."""
    longest = max((len(row.ids) for row in rows), default=0)
    ids = torch.full((len(rows), longest), pad, dtype=torch.long)
    starts = torch.zeros(len(rows), longest, dtype=torch.bool)
    probability = torch.full((len(rows), longest), float("nan"))
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        starts[i, row.starts] = True
        probability[i, : len(row.ids)] = torch.tensor(row.probability)
    return SegmentedGeneration(
        torch.cat([given, ids.to(given.device)], 1),
        starts,
        probability,
        tuple(rows),
        rule,
        confidence,
        max_segment_length,
        verified,
        eps,
        cache_slots,
        clock.spent.get("prompt", 0.0),
        clock.spent.get("macro", 0.0),
        clock.spent.get("micro", 0.0),
        clock.now(),
    )
