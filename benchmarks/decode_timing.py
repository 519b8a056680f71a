"""Ways to write answers, timed side by side: in rounds, batch by batch, in turning order. Knows no model."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.decode_ways import Batch, Rows
from benchmarks.measure import in_turn, seconds_of, spread
from model.decoding.output import SegmentedGeneration
from model.terminal import Tell

Run = Callable[[Batch], Any]  # gives Rows, or a SegmentedGeneration


@dataclass
class Timing:
    """What one way wrote in each round, and how long it took."""

    seconds: list[float] = field(default_factory=list)  # a round
    tokens: list[int] = field(default_factory=list)  # a round
    answers: list[Any] = field(default_factory=list)  # a batch, of the last round

    @property
    def rate(self) -> list[float]:
        """New tokens per second in each round."""
        return [n / s for n, s in zip(self.tokens, self.seconds, strict=True)]

    @property
    def rows(self) -> Rows:
        """The new ids of all prompts."""
        return [row for answer in self.answers for row in _rows(answer)]

    @property
    def tokens_per_macro_step(self) -> float:
        """New tokens over passes of the base; of segmented answers."""
        passes = sum(answer.macro_steps for answer in self.answers)
        return float(sum(answer.new_tokens for answer in self.answers) / max(1, passes))

    @property
    def parts(self) -> dict[str, float]:
        """Share of the time in the prompt, the base, the micro decoder, and elsewhere; of segmented answers."""
        whole = sum(answer.total_seconds for answer in self.answers)
        shares = {
            part: sum(getattr(answer, f"{part}_seconds") for answer in self.answers) / whole
            for part in ("prompt", "macro", "micro")
        }
        return {**shares, "rest": max(0.0, 1 - sum(shares.values()))}

    def over(self, base: Timing) -> dict[str, Any] | None:
        """New tokens per second over the base's, in each round."""
        return spread([a / b for a, b in zip(self.rate, base.rate, strict=True)])

    def identical(self, base: Timing) -> float:
        """Share of answers that are the base's own, token for token."""
        return sum(a == b for a, b in zip(self.rows, base.rows, strict=True)) / len(base.rows)


def timed(runs: dict[str, Run], batches: list[Batch], repeats: int, tell: Tell) -> dict[str, Timing]:
    """Every way on every batch, `repeats` times, after a round on the first batch that does not count."""
    names = list(runs)
    found = {name: Timing() for name in names}
    for name in names:
        tell(f"warming up: {name}", None)
        runs[name](batches[0])
    for turn in range(repeats):
        for timing in found.values():
            timing.seconds.append(0.0)
            timing.tokens.append(0)
            timing.answers.clear()
        for number, batch in enumerate(batches):
            tell(f"round {turn + 1} of {repeats}", (turn + number / len(batches)) / repeats)
            for name in (names[i] for i in in_turn(turn + number, len(names))):
                gc.collect()
                seconds, answer = seconds_of(lambda name=name, batch=batch: runs[name](batch))  # type: ignore[misc]
                found[name].seconds[-1] += seconds
                found[name].tokens[-1] += sum(len(row) for row in _rows(answer))
                found[name].answers.append(answer)
    return found


def _rows(answer: Any) -> Rows:
    return [row.ids for row in answer.rows] if isinstance(answer, SegmentedGeneration) else answer
