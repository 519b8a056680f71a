"""Decoders are timed side by side: in rounds, batch by batch, in turning order, so that disturbances fall on all."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.batch_log import BatchLog, Measured, Place
from benchmarks.speed.decoders import Decoder
from benchmarks.speed.options import DecodeOptions
from benchmarks.speed.prompts import Rows
from benchmarks.timing import in_turn, ratios, seconds_of
from model.errors import MicroStepError
from model.progress import Tell

WARM_TOKENS = 16  # that a decoder writes before it is measured


@dataclass(frozen=True)
class Measurements:
    """What one decoder wrote in R rounds to B batches of P prompts in all, and how long it took."""

    rounds: list[list[Measured]]  # [R][B]
    order: list[int]  # [P] place of each prompt of the batches, one after the other, in the list that was given

    @property
    def seconds(self) -> NDArray[np.float64]:
        """[R, B]."""
        return np.array([[batch.seconds for batch in batches] for batches in self.rounds])

    @property
    def tokens(self) -> NDArray[np.float64]:
        """[R, B] new tokens."""
        return np.array([[sum(map(len, batch.answers.rows)) for batch in batches] for batches in self.rounds], float)

    @property
    def rates(self) -> list[float]:
        """[R] new tokens per second."""
        rates: list[float] = (self.tokens.sum(1) / self.seconds.sum(1)).tolist()
        return rates

    @property
    def rows(self) -> Rows:
        """[P] the new ids of each prompt in the last round."""
        return self._of_prompts([row for batch in self.rounds[-1] for row in batch.answers.rows])

    @property
    def passes(self) -> NDArray[np.float64] | None:
        """[P] passes of the base for each prompt in the last round, if they are known."""
        passes = [n for batch in self.rounds[-1] for n in batch.answers.passes or ()]
        return np.array(self._of_prompts(passes), float) if passes else None

    @property
    def slots(self) -> NDArray[np.float64] | None:
        """[P] slots of the base's cache at the end of each answer in the last round, if they are known."""
        slots = [n for batch in self.rounds[-1] for n in batch.answers.slots or ()]
        return np.array(self._of_prompts(slots), float) if slots else None

    @property
    def tokens_per_pass(self) -> float:
        """New tokens over passes of the base, of all prompts."""
        if self.passes is None:
            raise MicroStepError("the passes of the base are not known")
        return float(sum(map(len, self.rows)) / self.passes.sum())

    @property
    def drafted_per_pass(self) -> float:
        """Tokens that were shown to the base, over its passes."""
        drafted = sum(batch.answers.drafted for batch in self.rounds[-1])
        return drafted * self.tokens_per_pass / sum(map(len, self.rows))

    @property
    def parts(self) -> dict[str, float] | None:
        """Share of the time in the prompt, the base, the micro decoder, and elsewhere; None of plain answers."""
        batches = [batch for batches in self.rounds for batch in batches]
        shares = {
            part: sum(batch.answers.parts[part] for batch in batches) / float(self.seconds.sum())
            for part in batches[0].answers.parts
        }
        return {**shares, "rest": max(0.0, 1 - sum(shares.values()))} if shares else None

    def faster(self, base: Measurements) -> dict[str, Any]:
        """New tokens per second over the base's in the same round: median, smallest, largest, each."""
        return ratios(self.rates, base.rates) or {}

    def identical(self, base: Measurements) -> NDArray[np.float64]:
        """[P] 1 where the answer is the base's own, token for token."""
        return np.array([float(mine == theirs) for mine, theirs in zip(self.rows, base.rows, strict=True)])

    def _of_prompts(self, values: list[Any]) -> list[Any]:
        """Values of the prompts of the batches in the order in which the prompts were given."""
        return [values[i] for i in np.argsort(np.array(self.order))]


def batches_of(prompts: Rows, size: int) -> tuple[list[int], list[Rows]]:
    """[P] the order in which prompts are answered, and the batches: those of similar length together, longest last."""
    order = list(range(len(prompts)))
    if size > 1:
        order.sort(key=lambda i: (len(prompts[i]), i))
    return order, [[prompts[i] for i in order[a : a + size]] for a in range(0, len(prompts), size)]


def measure(
    decoders: Sequence[Decoder], prompts: Rows, size: int, options: DecodeOptions, log: BatchLog, tell: Tell
) -> list[Measurements]:
    """Let every decoder answer all prompts in batches of `size`; see `batches_of`."""
    repeats, new_tokens = options.repeats, options.max_new_tokens
    now = time.process_time if options.clock == "processor" else time.perf_counter
    order, batches = batches_of(prompts, size)
    warm = set[int]()
    for turn in range(repeats):
        for number, batch in enumerate(batches):
            share = (turn + number / len(batches)) / repeats
            tell(f"{size} at a time: batch {number + 1} of {len(batches)}, round {turn + 1} of {repeats}", share)
            for which in in_turn(turn + number, len(decoders)):
                place = size, turn, number, which
                if place not in log:
                    if which not in warm:
                        decoders[which].write(batches[0], min(WARM_TOKENS, new_tokens))
                        warm.add(which)
                    _measure(decoders[which], batch, new_tokens, log, place, now)
    return [
        Measurements(
            [[log[size, turn, number, which] for number in range(len(batches))] for turn in range(repeats)],
            order,
        )
        for which in range(len(decoders))
    ]


def _measure(
    decoder: Decoder, batch: Rows, new_tokens: int, log: BatchLog, place: Place, now: Callable[[], float]
) -> None:
    gc.collect()
    log.put(place, Measured(*seconds_of(lambda: decoder.write(batch, new_tokens), now=now)))
