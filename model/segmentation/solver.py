"""Find the parameter that gives a mean segment length on stored scores, and the curve between the two.

The mean length is a step function of the parameter: it changes only where the parameter passes one of the values that
the rule compares. The curve is taken at quantiles of these values; between the two neighbours that enclose the target,
the steps themselves are bisected. For a rule with `Rule.monotone`, no parameter comes nearer to the target; for the
others, none of those that were tried does. Tokens may come in parts, of which one is in memory at a time.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_MOST_LEVELS = 2_000_000  # compared values held at once; of more, a sample is bisected first

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
    tokens, _, fewest = _limits([inputs], max_length)
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
    return solve_in_parts(rule, [inputs], target_length, max_length, points, **parameters)


def solve_in_parts(
    rule: str,
    parts: Iterable[SegmentInputs],
    target_length: float,
    max_length: int = MAX_LENGTH,
    points: int = POINTS,
    **parameters: float,
) -> Solved:
    """As `solve`, for tokens in parts of whole rows; `parts` is iterated some 60 times.

    With several parts, the points of the curve may differ from those of one part; the mean length at each is exact.
    """
    check_max_length(max_length)
    solved = solvable(rule, target_length, max_length, parameters)
    chosen = valid_parameters(rule, parameters)
    search = _Search(rule, parts, max_length, solved, chosen)
    length, tried = search.length, search.tried
    curve = _points(search, points)
    search.try_all(curve.tolist())
    lengths = np.array([length(value) for value in curve.tolist()])
    enclosing = np.flatnonzero((lengths[:-1] - target_length) * (lengths[1:] - target_length) <= 0)
    for i in enclosing[:1].tolist():
        low, high = curve[i : i + 2].tolist()
        if solved.integer:
            _bisect(length, np.arange(low, high + 1), target_length)
            continue
        inside, every = search.levels_between(low, high)
        while not every:
            low, high = _bisect(length, np.unique(np.concatenate([[low], inside, [high]])), target_length)
            inside, every = search.levels_between(low, high)
        levels = np.unique(np.concatenate([[low], inside, [high]]))
        _bisect(length, np.concatenate([[low], (levels[:-1] + levels[1:]) / 2, [high]]), target_length)
    value = min(tried, key=lambda value: (abs(tried[value] - target_length), value))
    reached = tried[value]
    if not solved.integer:
        value = _short(value, length, reached, solved)
    solution = {**chosen, solved.name: int(value) if solved.integer else value}
    obstacle, beyond = _obstacle(search, reached, target_length)
    return Solved(
        rule,
        solved.name,
        solution[solved.name],
        reached,
        target_length,
        max_length,
        solution,
        RULES[rule].monotone,
        search.tokens,
        search.forced,
        search.fewest,
        obstacle,
        beyond,
        curve,
        lengths,
    )


def _counted(inputs: SegmentInputs) -> NDArray[np.bool_]:
    """[N] tokens outside the prompt."""
    return np.ones(len(inputs), dtype=bool) if inputs.prompt is None else ~inputs.prompt


def _limits(parts: Iterable[SegmentInputs], max_length: int) -> tuple[int, int, int]:
    """Return the number of tokens outside the prompt, of their forced boundaries, and the fewest segments of them."""
    found = np.zeros(3, dtype=np.int64)
    for inputs in parts:
        counted = _counted(inputs)
        joined = Pointwise(np.ones(len(inputs), dtype=bool), np.zeros(len(inputs)))
        fewest = find_starts(joined, inputs.forced, max_length)
        found += [int((each & counted).sum()) for each in (counted, inputs.forced, fewest)]
    if not found[0]:
        raise MicroStepError("there is no token to segment outside the prompt")
    return int(found[0]), int(found[1]), int(found[2])


class _Search:
    """The mean length of a rule as a function of the parameter that is solved for, over parts of the tokens."""

    def __init__(
        self,
        rule: str,
        parts: Iterable[SegmentInputs],
        max_length: int,
        solved: Parameter,
        chosen: dict[str, float],
    ) -> None:
        self._rule, self._parts, self._chosen = rule, parts, chosen
        self.max_length, self.solved = max_length, solved
        self.tokens, self.forced, self.fewest = _limits(parts, max_length)
        self.tried: dict[float, float] = {}  # the mean length at each value that was tried

    def length(self, value: float) -> float:
        self.try_all([value])
        return self.tried[value]

    def try_all(self, values: Sequence[float]) -> None:
        """Try values, all in one iteration over the parts."""
        new = [value for value in dict.fromkeys(values) if value not in self.tried]
        segments = dict.fromkeys(new, 0)
        for inputs in self._parts if new else ():
            counted = _counted(inputs)
            for value in new:
                parameters = {**self._chosen, self.solved.name: value}
                segments[value] += int((starts_of(self._rule, inputs, parameters, self.max_length) & counted).sum())
        self.tried |= {value: self.tokens / segments[value] for value in new}

    def plans(self) -> Iterator[Plan]:
        return (plan_of(self._rule, inputs, self._chosen, self.max_length) for inputs in self._parts)

    def levels_between(self, low: float, high: float) -> tuple[Floats, bool]:
        """Compared values between low and high, rising, and whether these are all; else they are a sample."""
        kept: list[Floats] = []
        step, held = 1, 0
        for plan in self.plans():
            for values in _levels(plan, self.max_length, low, high):
                kept.append(values[::step])
                held += len(kept[-1])
                while held > _MOST_LEVELS:
                    step *= 2
                    kept = [each[::2] for each in kept]
                    held = sum(map(len, kept))
        return np.unique(np.concatenate([np.zeros(0), *kept])), step == 1

    def sample(self, low: float, high: float) -> list[Floats]:
        """At most `_SAMPLE` compared values between low and high, evenly from each part: all if there are no more."""
        parts = sum(1 for _ in self._parts)
        found: defaultdict[int, list[Floats]] = defaultdict(list)  # by the length of the segment so far
        for plan in self.plans():
            for number, values in enumerate(_levels(plan, self.max_length, low, high)):
                found[number].append(values[:: max(1, len(values) * (self.max_length - 1) * parts // _SAMPLE)])
        return [np.unique(np.concatenate(each)) for each in found.values()]

    def tied(self, low: float, high: float) -> bool:
        """Whether several tokens have a value in (low, high] or in [low, high), as the rule compares, and all one."""
        pointwise = [plan.compared for plan in self.plans() if isinstance(plan, Pointwise)]
        upper = [x[(x > low) & (x <= high)] for x in pointwise]
        lower = [x[(x >= low) & (x < high)] for x in pointwise]
        for between in (np.concatenate(each) for each in (upper, lower)):
            if len(between) > 1 and (between == between[0]).all():
                return True
        return False


def _obstacle(search: _Search, reached: float, target: float) -> tuple[Obstacle, float | None]:
    """Why no value comes nearer to the target, and the nearest mean length on its other side."""
    tried = search.tried
    if abs(reached - target) < REACHED:
        return "none", None
    others = [value for value, length in tried.items() if (length - target) * (reached - target) < 0]
    if not others:
        return "range", None
    beyond = tried[min(others, key=lambda value: abs(tried[value] - target))]
    if abs(round(search.tokens / beyond) - round(search.tokens / reached)) == 1:
        return "whole segments", beyond
    if search.solved.integer:
        return "whole parameter", beyond
    if isinstance(next(search.plans()), Pointwise):
        near, far = ([value for value in tried if tried[value] == length] for length in (reached, beyond))
        nearest: tuple[float, float] = min(product(near, far), key=lambda pair: abs(pair[0] - pair[1]))
        if search.tied(*sorted(nearest)):
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
    search = _Search(rule, [inputs], max_length, solved, chosen)
    curve = _points(search, points)
    return curve, np.array([search.length(value) for value in curve.tolist()])


def _points(search: _Search, points: int) -> Floats:
    """Return [C] the values of the parameter at which the curve is taken, including the ends of its range."""
    solved = search.solved
    if solved.integer:
        return np.unique(np.geomspace(max(1, solved.low), solved.high, points).round())
    ends = [solved.low, solved.high]
    pooled = np.concatenate([*search.sample(solved.low, solved.high), ends])
    return np.unique(np.quantile(pooled, np.linspace(0, 1, points), method="nearest"))


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


def _bisect(length: Callable[[float], float], steps: Floats, target: float) -> tuple[float, float]:
    """Narrow the steps down to the two neighbours that enclose the target, starting from the ends."""
    low, high = 0, len(steps) - 1
    rising = length(float(steps[high])) >= length(float(steps[low]))
    while high - low > 1:
        middle = (low + high) // 2
        if (length(float(steps[middle])) <= target) == rising:
            low = middle
        else:
            high = middle
    return float(steps[low]), float(steps[high])


def _short(value: float, length: Callable[[float], float], reached: float, solved: Parameter) -> float:
    """Return the value with the fewest digits, from three, that gives the same mean length."""
    for digits in range(3, 17):
        short = float(f"{value:.{digits}g}")
        if solved.low <= short <= solved.high and length(short) == reached:
            return short
    return value
