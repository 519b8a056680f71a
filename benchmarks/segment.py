"""Time of segmenting stored scores, every score-based rule beside a plain Python loop, and of the solver.

The loop reads Python floats from lists, which is the fastest that a loop can do, and must give the same boundaries.
All of it runs on one core.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.output import Out, check_out, columns, show, write
from model.errors import MicroStepError
from model.segmentation.segment import MAX_LENGTH, RULES, SegmentInputs, segment
from model.segmentation.solver import solve
from model.terminal import progress_bar

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
    first, found, begin = inputs.row_starts.tolist(), [], 0
    for t in range(len(inputs)):
        start = first[t] or t - begin >= max_length or opens(begin, t)
        found.append(start)
        if start:
            begin = t
    return np.array(found, dtype=bool)


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


def benchmark(tokens: int, solved_tokens: int, repeats: int, max_length: int = MAX_LENGTH) -> dict[str, Any]:
    """A row a rule: seconds to segment, by us and by the loop, and to solve for a mean length.

    Args:
        tokens: stored scores that are segmented.
        solved_tokens: stored scores that are solved on.
        repeats: of our own timings; the loop runs once.
        max_length: M.

    Raises:
        MicroStepError: the loop and the rule disagree.
    """
    rows = []
    for rule in _SCORE_BASED:
        seconds, solving = [], []
        for _ in range(repeats):
            inputs = stored_scores(tokens)  # anew: what inputs keep between calls is computed in the first
            begin = time.perf_counter()
            found = segment(rule, inputs, max_length)
            seconds.append(time.perf_counter() - begin)
            few = stored_scores(solved_tokens)
            begin = time.perf_counter()
            solved = solve(rule, few, _TARGET, max_length)
            solving.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        expected = naive(rule, inputs, max_length, dict(found.parameters))
        loop = time.perf_counter() - begin
        if not np.array_equal(found.starts, expected):
            raise MicroStepError(f"{rule}: the loop gives other boundaries")
        rows.append(
            {
                "rule": rule,
                "seconds": {"median": median(seconds), "max": max(seconds)},
                "loop_seconds": loop,
                "solve_seconds": {"median": median(solving), "max": max(solving)},
                "mean_length": float(found.lengths.mean()),
                "solved_length": solved.mean_length,
            }
        )
    return {
        "benchmark": "segment",
        "tokens": tokens,
        "solved_tokens": solved_tokens,
        "max_length": max_length,
        "target_length": _TARGET,
        "repeats": repeats,
        "numpy": np.__version__,
        "rows": rows,
    }


commands = typer.Typer()


@commands.command("segment")
def segment_command(
    tokens: Annotated[int, typer.Option(min=1, help="Stored scores to segment.")] = 1_000_000,
    solved_tokens: Annotated[int, typer.Option(min=1, help="Stored scores to solve on.")] = 100_000,
    repeats: Annotated[int, typer.Option(min=1, help="Times that each is run.")] = 3,
    max_length: Annotated[int, typer.Option(min=3, help="The most tokens that a segment has.")] = MAX_LENGTH,
    out: Out = None,
) -> None:
    """Time of segmenting stored scores beside a plain loop, and of solving for a mean length."""
    check_out(out)
    with progress_bar() as tell:
        tell("segmenting", None)
        report = benchmark(tokens, solved_tokens, repeats, max_length)
    solving = f"solve {solved_tokens:,}"
    table = columns("rule", f"s for {tokens:,}", "loop", "x", solving, "mean length", "solved for")
    for row in report["rows"]:
        seconds = row["seconds"]["median"]
        table.add_row(
            row["rule"],
            f"{seconds:.3f}",
            f"{row['loop_seconds']:.2f}",
            f"{row['loop_seconds'] / seconds:.0f}",
            f"{row['solve_seconds']['median']:.3f}",
            f"{row['mean_length']:.2f}",
            f"{row['solved_length']:.3f}",
        )
    show("", table)
    write([report], out)
