"""Find the parameter that gives a mean segment length on stored scores, and the curve between the two.

The mean length is a step function of the parameter: it changes only where the parameter passes one of the values that
the rule compares. The curve is taken at quantiles of these values; between the two neighbours that enclose the target,
the steps themselves are bisected. For a rule with `Rule.monotone`, no parameter comes nearer to the target; for the
others, none of those that were tried does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import MicroStepError
from model.segmentation.boundaries import Plan, Pointwise, Running, find_starts
from model.segmentation.segment import (
    MAX_LENGTH,
    RULES,
    Parameter,
    SegmentInputs,
    check_max_length,
    check_target_length,
    plan_of,
    starts_of,
    valid_parameters,
)
from model.short_repr import ShortRepr

Floats = NDArray[np.float64]
POINTS = 33  # number of points of the curve
REACHED = 5e-4  # tokens: a mean length this near to the target counts as the target
_SAMPLE = 200_000  # number of compared values from which the quantiles are taken

# Why no value tried comes nearer to the target: it does; the target is no whole number of segments; the parameter is a
# whole number; tokens have equal values; one boundary moves others; all lengths that can be reached are on one side.
Obstacle = Literal["none", "whole segments", "whole parameter", "ties", "linked", "range"]


@dataclass(frozen=True, repr=False)
class Solved(ShortRepr):
    """The parameter whose mean segment length is nearest to the target."""

    rule: str
    parameter: str  # name of the parameter that was solved for
    value: float
    mean_length: float  # mean length at that value, in tokens
    target_length: float
    max_length: int  # M
    parameters: dict[str, float]  # all parameters of the rule, the solved one included
    exact: bool  # no other value comes nearer
    tokens: int  # outside the prompt
    forced: int  # boundaries among them that every rule has
    fewest: int  # segments that any rule can make of them
    obstacle: Obstacle
    beyond: float | None  # the nearest mean length on the other side of the target; None if there is none
    curve_parameter: Floats  # [C] rising
    curve_length: Floats  # [C] mean length at each

    def __post_init__(self) -> None:
        if self.curve_parameter.shape != self.curve_length.shape or self.curve_parameter.ndim != 1:
            raise ValueError(
                f"the curve must be two arrays [C], got {self.curve_parameter.shape}, {self.curve_length.shape}"
            )

    @property
    def segments(self) -> int:
        return round(self.tokens / self.mean_length)


def length_of_segments(inputs: SegmentInputs, segments: int, max_length: int) -> float:
    """Return the mean length of so many segments, in tokens."""
    tokens, _, fewest = _limits(inputs, max_length)
    if not fewest <= segments <= tokens:
        raise MicroStepError(
            f"{segments:,} segment{'s' * (segments != 1)} cannot be reached: {tokens:,} tokens make at most {tokens:,}"
            f" segments, and at least {fewest:,} of at most {max_length} tokens each"
        )
    return tokens / segments


def solve(
    rule: str,
    inputs: SegmentInputs,
    target_length: float,
    max_length: int = MAX_LENGTH,
    points: int = POINTS,
    **parameters: float,
) -> Solved:
    """Find the parameter of a rule for a mean segment length, after the cap.

    Args:
        rule: a name in `RULES`.
        inputs: stored scores of N tokens, one row or more; the prompt is not counted.
        target_length: tokens per segment, from 1 to max_length.
        max_length: M.
        points: the largest number of points of the curve.
        parameters: the rule's other parameters, without the one that is solved for.

    Raises:
        MicroStepError: the rule has nothing to solve for, the cap does not allow the target, there is no token outside
            the prompt, or the errors of `segment`.
    """
    check_max_length(max_length)
    solved = solvable(rule, target_length, max_length, parameters)
    chosen = valid_parameters(rule, parameters)
    length, tried = _lengths_of(rule, inputs, max_length, solved, chosen)
    plan = plan_of(rule, inputs, chosen, max_length)
    curve = _points(plan, max_length, solved, points)
    lengths = np.array([length(value) for value in curve.tolist()])
    enclosing = np.flatnonzero((lengths[:-1] - target_length) * (lengths[1:] - target_length) <= 0)
    for i in enclosing[:1].tolist():
        low, high = curve[i : i + 2].tolist()
        if solved.integer:
            steps = np.arange(low, high + 1)
        else:
            levels = np.unique(np.concatenate([[low], *_levels(plan, max_length, low, high), [high]]))
            steps = np.concatenate([[low], (levels[:-1] + levels[1:]) / 2, [high]])
        _bisect(length, steps, target_length)
    value = min(tried, key=lambda value: (abs(tried[value] - target_length), value))
    reached = tried[value]
    if not solved.integer:
        value = _short(value, length, reached, solved)
    solution = {**chosen, solved.name: int(value) if solved.integer else value}
    tokens, forced, fewest = _limits(inputs, max_length)
    obstacle, beyond = _obstacle(plan, solved, tried, reached, target_length, tokens)
    return Solved(
        rule,
        solved.name,
        solution[solved.name],
        reached,
        target_length,
        max_length,
        solution,
        RULES[rule].monotone,
        tokens,
        forced,
        fewest,
        obstacle,
        beyond,
        curve,
        lengths,
    )


def _limits(inputs: SegmentInputs, max_length: int) -> tuple[int, int, int]:
    """Return the number of tokens outside the prompt, of their forced boundaries, and the fewest segments of them."""
    counted = np.ones(len(inputs), dtype=bool) if inputs.prompt is None else ~inputs.prompt
    if not counted.any():
        raise MicroStepError("there is no token to segment outside the prompt")
    joined = Pointwise(np.ones(len(inputs), dtype=bool), np.zeros(len(inputs)))
    fewest = find_starts(joined, inputs.forced, max_length)
    return tuple(int((each & counted).sum()) for each in (counted, inputs.forced, fewest))  # type: ignore[return-value]


def _obstacle(
    plan: Plan, solved: Parameter, tried: dict[float, float], reached: float, target: float, tokens: int
) -> tuple[Obstacle, float | None]:
    """Why no value comes nearer to the target, and the nearest mean length on its other side."""
    if abs(reached - target) < REACHED:
        return "none", None
    others = [value for value, length in tried.items() if (length - target) * (reached - target) < 0]
    if not others:
        return "range", None
    beyond = tried[min(others, key=lambda value: abs(tried[value] - target))]
    if abs(round(tokens / beyond) - round(tokens / reached)) == 1:
        return "whole segments", beyond
    if solved.integer:
        return "whole parameter", beyond
    if isinstance(plan, Pointwise):
        near, far = ([value for value in tried if tried[value] == length] for length in (reached, beyond))
        nearest: tuple[float, float] = min(product(near, far), key=lambda pair: abs(pair[0] - pair[1]))
        low, high = sorted(nearest)
        x = plan.compared
        for between in (x[(x > low) & (x <= high)], x[(x >= low) & (x < high)]):  # as the rule compares
            if len(between) > 1 and (between == between[0]).all():
                return "ties", beyond
    return "linked", beyond


def length_curve(
    rule: str, inputs: SegmentInputs, max_length: int = MAX_LENGTH, points: int = POINTS, **parameters: float
) -> tuple[Floats, Floats]:
    """Return [C] rising values of the parameter that sets the mean length, and [C] the mean length at each.

    Arguments and errors are those of `solve`.
    """
    solved = solvable(rule, 1, max_length, parameters)
    chosen = valid_parameters(rule, parameters)
    length, _ = _lengths_of(rule, inputs, max_length, solved, chosen)
    curve = _points(plan_of(rule, inputs, chosen, max_length), max_length, solved, points)
    return curve, np.array([length(value) for value in curve.tolist()])


def _lengths_of(
    rule: str, inputs: SegmentInputs, max_length: int, solved: Parameter, chosen: dict[str, float]
) -> tuple[Callable[[float], float], dict[float, float]]:
    """Return the mean length as a function of the parameter, and the dict in which it caches its values."""
    tokens, _, _ = _limits(inputs, max_length)
    counted = np.ones(len(inputs), dtype=bool) if inputs.prompt is None else ~inputs.prompt
    tried: dict[float, float] = {}

    def length(value: float) -> float:
        if value not in tried:
            starts = starts_of(rule, inputs, {**chosen, solved.name: value}, max_length)
            tried[value] = tokens / int((starts & counted).sum())
        return tried[value]

    return length, tried


def _points(plan: Plan, max_length: int, solved: Parameter, points: int) -> Floats:
    """Return [C] the values of the parameter at which the curve is taken."""
    if solved.integer:
        return np.unique(np.geomspace(max(1, solved.low), solved.high, points).round())
    return _quantiles(plan, max_length, solved, points)


def solvable(rule: str, target_length: float, max_length: int, parameters: dict[str, float]) -> Parameter:
    """Return the parameter to solve for, after all checks that need no scores."""
    valid_parameters(rule, parameters)
    name = RULES[rule].solves
    if name is None:
        raise MicroStepError(f"the rule {rule} has no parameter that sets the mean length; choose another rule")
    if name in parameters:
        raise MicroStepError(f"{name} of the rule {rule} is the parameter to solve for; do not set it")
    check_target_length(target_length, max_length)
    return RULES[rule].parameter(name)


def _levels(plan: Plan, max_length: int, low: float, high: float) -> Iterator[Floats]:
    """Yield the compared values between low and high, over every possible segment."""
    if isinstance(plan, Pointwise):
        arrays: Iterator[NDArray[np.floating]] = iter([plan.compared])
    elif isinstance(plan, Running):
        pairs = zip(range(1, max_length), plan.operands(), strict=False)
        arrays = (plan.value(before, new) for _, (before, new) in pairs)
    else:
        arrays = (plan.values[j:, j - 1] for j in range(1, min(max_length, plan.values.shape[1] + 1)))
    for values in arrays:
        inside = values[(values > low) & (values < high)]
        yield np.unique(inside.astype(np.float64))


def _quantiles(plan: Plan, max_length: int, solved: Parameter, points: int) -> Floats:
    """Return [C] rising: the values at which to take the curve, including the ends of the parameter's range."""
    ends = [solved.low, solved.high]
    sample = []
    for values in _levels(plan, max_length, *ends):
        sample.append(values[:: max(1, len(values) * (max_length - 1) // _SAMPLE)])
    pooled = np.concatenate([*sample, ends])
    return np.unique(np.quantile(pooled, np.linspace(0, 1, points), method="nearest"))


def _bisect(length: Callable[[float], float], steps: Floats, target: float) -> None:
    """Narrow the steps down to the two neighbours that enclose the target, starting from the ends."""
    low, high = 0, len(steps) - 1
    rising = length(float(steps[high])) >= length(float(steps[low]))
    while high - low > 1:
        middle = (low + high) // 2
        if (length(float(steps[middle])) <= target) == rising:
            low = middle
        else:
            high = middle


def _short(value: float, length: Callable[[float], float], reached: float, solved: Parameter) -> float:
    """Return the value with the fewest digits, from three, that gives the same mean length."""
    for digits in range(3, 17):
        short = float(f"{value:.{digits}g}")
        if solved.low <= short <= solved.high and length(short) == reached:
            return short
    return value
