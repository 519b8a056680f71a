"""Time of segmenting stored scores, each rule of scores beside a plain Python loop, and of the solver.

The loop reads Python floats from lists, which is the fastest that a loop can do, and must give the same boundaries.
All of it runs on one core.
"""

import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.options import SegmentTimingOptions
from benchmarks.timing import seconds_of, spread
from model.errors import MicroStepError
from model.progress import Tell
from model.segmentation.segment import RULES, SegmentInputs, segment
from model.segmentation.solver import solve

_SCORE_BASED = tuple(name for name, rule in RULES.items() if rule.needs <= {"scores"})
_ROW = 1000  # tokens of a text
_TARGET = 2.5  # tokens a segment

Opens = Callable[[int, int], bool]  # of the segment's first token and the token that is asked about


def stored_scores(tokens: int, seed: int = 0) -> SegmentInputs:
    """Random scores in the proportions of a small language model on prose: many sure tokens, a long tail."""
    rng = np.random.default_rng(seed)
    entropy = rng.gamma(0.7, 2.5, tokens).astype(np.float32)
    confidence = np.exp(-0.6 * entropy * rng.uniform(0.6, 1.4, tokens)).astype(np.float32)
    margin = (confidence * rng.random(tokens)).astype(np.float32)
    surprisal = rng.exponential(entropy).astype(np.float32)
    return SegmentInputs(entropy, confidence, margin, surprisal, row_start=np.arange(tokens) % _ROW == 0)


def naive(rule: str, inputs: SegmentInputs, max_length: int, parameters: dict[str, float]) -> NDArray[np.bool_]:
    """[N] boundaries by a loop over tokens."""
    opens = _formula(rule, inputs, parameters)
    row_starts, starts, begin = inputs.row_starts.tolist(), [], 0
    for t in range(len(inputs)):
        start = row_starts[t] or t - begin >= max_length or opens(begin, t)
        starts.append(start)
        if start:
            begin = t
    return np.array(starts, dtype=bool)


def _formula(rule: str, inputs: SegmentInputs, p: dict[str, float]) -> Opens:
    scores = {name: getattr(inputs, name).tolist() for name in ("entropy", "confidence", "margin", "surprisal")}
    h, c = scores["entropy"], scores["confidence"]
    place = inputs.position.tolist()

    def spike(begin: int, t: int) -> bool:
        return bool(h[t] > max(h[t - min(int(p["k"]), place[t]) : t]))

    formulas: dict[str, Opens] = {
        "fixed": lambda begin, t: t - begin >= p["k"],
        "entropy": lambda begin, t: h[t] > p["threshold"],
        "entropy_rise": lambda begin, t: h[t] - h[t - 1] > p["threshold"],
        "entropy_combined": lambda begin, t: h[t] > p["threshold"] and h[t] - h[t - 1] > p["rise"],
        "entropy_spike": spike,
        "entropy_relative": lambda begin, t: not (h[t] < p["eps"] or h[t] < p["rho"] * max(h[begin:t])),
        "entropy_groups": lambda begin, t: h[t] > p["threshold"] or h[t - 1] > p["threshold"],
        "entropy_budget": lambda begin, t: sum(h[begin : t + 1]) > p["budget"],
        "confidence": lambda begin, t: c[t] < p["tau"],
        "margin": lambda begin, t: scores["margin"][t] < p["tau"],
        "confidence_product": lambda begin, t: math.prod(c[begin : t + 1]) < p["tau"],
        "surprisal": lambda begin, t: scores["surprisal"][t] > p["threshold"],
    }
    return formulas[rule]


def measure(options: SegmentTimingOptions, tell: Tell) -> dict[str, Any]:
    """A row a rule: seconds to segment, by us and by the loop, which runs once, and to solve for a mean length."""
    rows = []
    for number, rule in enumerate(_SCORE_BASED):
        tell("segmenting", number / len(_SCORE_BASED))
        rows.append(_row(rule, options))
    return {
        "benchmark": "segment",
        **asdict(options),
        "target_length": _TARGET,
        "numpy": np.__version__,
        "rows": rows,
    }


def _row(rule: str, options: SegmentTimingOptions) -> dict[str, Any]:
    seconds, solving = [], []
    for _ in range(options.repeats):
        inputs = stored_scores(options.tokens)  # anew: what inputs keep between calls is computed in the first
        taken, ours = seconds_of(partial(segment, rule, inputs, options.max_length))
        seconds.append(taken)
        taken, solved = seconds_of(
            partial(solve, rule, stored_scores(options.solved_tokens), _TARGET, options.max_length)
        )
        solving.append(taken)
    loop_seconds, expected = seconds_of(partial(naive, rule, inputs, options.max_length, dict(ours.parameters)))
    if not np.array_equal(ours.starts, expected):
        raise MicroStepError(f"{rule}: the loop gives other boundaries")
    return {
        "rule": rule,
        "seconds": spread(seconds),
        "loop_seconds": loop_seconds,
        "faster": loop_seconds / median(seconds),
        "solve_seconds": spread(solving),
        "mean_length": float(ours.lengths.mean()),
        "solved_length": solved.mean_length,
    }
