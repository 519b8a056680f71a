"""How near the code comes to what weight traffic allows: decoding on forced courses, each beside the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.decode import Setting
from benchmarks.decode_forced import Weights, forced_agreement, forced_length
from benchmarks.decode_timing import Run, Timing, timed
from benchmarks.decode_ways import Batch, endless
from benchmarks.measure import spread
from model.causal_lm.forward import vocabulary
from model.errors import MicroStepError
from model.terminal import Tell


def merged_study(
    made: Setting, lengths: Sequence[float], repeats: int, tell: Tell = lambda message, fraction: None
) -> list[dict[str, Any]]:
    """Merged decoding with segments of known mean lengths, and answers of exactly T tokens: a row a length.

    Raises:
        MicroStepError: a length that the model does not have.
    """
    ways, weights = endless(made.ways), Weights.of(made.ways.model)
    most = ways.model.config.max_segment_length
    if not 1 <= min(lengths) <= max(lengths) <= most:
        raise MicroStepError(f"segments of this model have 1 to {most} tokens, got mean lengths {list(lengths)}")
    runs: dict[str, Run] = {"base": ways.plain}
    for length in lengths:

        def run(batch: Batch, length: float = length) -> Any:
            return ways.segments(batch, rule=forced_length(length), confidence=0.0, verify=False)

        runs[f"{length:g}"] = run
    timings = timed(runs, made.batches, repeats, tell)
    rows = []
    for length in lengths:
        timing = timings[f"{length:g}"]
        bound = weights.merged_bound(timing.tokens_per_macro_step)
        rows.append({"length": length, **_beside(timing, timings["base"], bound)})
    return rows


def lossless_study(
    made: Setting,
    rates: Sequence[float],
    drafts: Sequence[int],
    repeats: int,
    tell: Tell = lambda message, fraction: None,
) -> list[dict[str, Any]]:
    """Lossless decoding with drafts of known lengths that agree at known rates: a row for each of both.

    Raises:
        MicroStepError: a draft that is longer than the model's.
    """
    ways, weights = endless(made.ways), Weights.of(made.ways.model)
    most = ways.model.config.max_segment_length - 1
    if not 1 <= min(drafts) <= max(drafts) <= most:
        raise MicroStepError(f"this model drafts 1 to {most} tokens, got {list(drafts)}")
    courses = [(rate, n) for rate in rates for n in drafts]
    words = vocabulary(ways.model.base)
    answers = {id(batch): ways.plain(batch) for batch in made.batches}
    runs: dict[str, Run] = {"base": ways.plain}
    for rate, n in courses:

        def run(batch: Batch, rate: float = rate, n: int = n) -> Any:
            with forced_agreement(batch.prompts, answers[id(batch)], rate, words):
                return ways.segments(batch, confidence=0.0, verify=True, max_segment_length=n + 1)

        runs[f"{rate:g} of {n}"] = run
    timings = timed(runs, made.batches, repeats, tell)
    rows = []
    for rate, n in courses:
        timing = timings[f"{rate:g} of {n}"]
        written = [row for answer in timing.answers for row in answer.rows]
        drafted = sum(row.drafted for row in written) / sum(row.macro_steps for row in written)
        bound = weights.lossless_bound(timing.tokens_per_macro_step, drafted)
        rows.append(
            {
                "rate": rate,
                "drafts": n,
                "drafted": drafted,
                "identical": timing.identical(timings["base"]),
                **_beside(timing, timings["base"], bound),
            }
        )
    return rows


def _beside(timing: Timing, base: Timing, bound: float) -> dict[str, Any]:
    faster = timing.over(base)
    assert faster is not None
    return {
        "tokens_per_macro_step": timing.tokens_per_macro_step,
        "speedup": faster,
        "bound": bound,
        "of_bound": faster["median"] / bound,
        "tokens_per_second": spread(timing.rate),
        "base_tokens_per_second": spread(base.rate),
        "parts": timing.parts,
    }
