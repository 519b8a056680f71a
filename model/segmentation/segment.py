"""Divide tokens into segments: `segment` applies a rule of `RULES` to one row, `segment_rows` to several.

b_t = 1 when token t starts a segment. The following tokens always start one: the first of a row, any without scores,
the first with scores, every token of the prompt and the first after it. A segment has at most M tokens (boundaries.py
says how the cap and the rules work together). This module knows only stored scores; features that need the model are
computed in attention_features.py and micro_features.py.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import MicroStepError
from model.segmentation.boundaries import Plan, Pointwise, Table, find_starts
from model.segmentation.rule_inputs import SegmentInputs, word_starts
from model.segmentation.rules import RULES, Parameter, Rule
from model.short_repr import ShortRepr

__all__ = [
    "MAX_LENGTH",
    "RULES",
    "Parameter",
    "Rule",
    "SegmentInputs",
    "Segmentation",
    "check_max_length",
    "check_target_length",
    "entropy_bound",
    "find_rule",
    "plan_of",
    "segment",
    "segment_rows",
    "starts_of",
    "valid_parameters",
    "word_starts",
]

MAX_LENGTH = 4  # default M
LONGEST = 1_000_000  # M at most


@dataclass(frozen=True, repr=False)
class Segmentation(ShortRepr):
    """The segments that a rule gives for N tokens, and the values that it compared."""

    starts: NDArray[np.bool_]  # [N] b
    value: NDArray[np.float32]  # [N] `Rule.value` given the segment before; NaN if nothing was compared
    rule: str
    parameters: Mapping[str, float]  # all parameters of the rule, defaults included
    max_length: int  # M

    def __post_init__(self) -> None:
        n = len(self.starts)
        if self.starts.shape != (n,) or self.value.shape != (n,):
            raise ValueError(f"starts and value must be [{n}], got {self.starts.shape} and {self.value.shape}")
        if n and not self.starts[0]:
            raise ValueError("starts[0] must be true: the first token starts a segment")

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def segment(self) -> NDArray[np.int64]:
        """[N] index of each token's segment, from 0."""
        return np.cumsum(self.starts, dtype=np.int64) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[S] number of tokens in each segment."""
        return np.diff(np.append(np.flatnonzero(self.starts), len(self))).astype(np.int64)


def segment(rule: str, inputs: SegmentInputs, max_length: int = MAX_LENGTH, **parameters: float) -> Segmentation:
    """Segment one row, or several rows laid end to end.

    Args:
        rule: a name in `RULES`.
        inputs: the arrays that the rule uses.
        max_length: M, the largest number of tokens in a segment.
        parameters: parameters of the rule; the others keep their defaults.
    """
    chosen = valid_parameters(rule, parameters)
    check_max_length(max_length)
    plan = plan_of(rule, inputs, chosen, max_length)
    starts = find_starts(plan, inputs.forced, max_length)
    if isinstance(plan, Pointwise):
        value = plan.compared.astype(np.float32)
    else:
        value = np.where(inputs.row_starts, np.nan, plan.compared(starts)).astype(np.float32)
    return Segmentation(starts, value, rule, chosen, max_length)


def segment_rows(
    rule: str, rows: Sequence[SegmentInputs], max_length: int = MAX_LENGTH, **parameters: float
) -> list[Segmentation]:
    """Segment several rows of any length in one pass, each as if alone. Raises the errors of `segment`."""
    if not rows:
        return []
    every = segment(rule, SegmentInputs.join(rows), max_length, **parameters)
    ends = np.cumsum([len(row) for row in rows])[:-1]
    parts = zip(np.split(every.starts, ends), np.split(every.value, ends), strict=True)
    return [Segmentation(starts, value, rule, every.parameters, max_length) for starts, value in parts]


def entropy_bound(confidence: NDArray[np.floating], vocabulary: int) -> NDArray[np.float64]:
    """Return the largest entropy, in nats, of a distribution over V words whose likeliest word has probability c.

    -c ln c - (1 - c) ln((1 - c) / (V - 1)): all other words are equally likely (Fano's inequality).
    """
    c = np.asarray(confidence, dtype=np.float64)
    rest = 1 - c
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = -c * np.log(c) - rest * np.log(rest / (vocabulary - 1))
    return np.where(rest <= 0, np.where(np.isnan(c), np.nan, 0.0), bound)


def plan_of(rule: str, inputs: SegmentInputs, parameters: Mapping[str, float], max_length: int) -> Plan:
    """Return a rule's plan for valid parameters."""
    plan = RULES[rule].plan(inputs, parameters)
    if isinstance(plan, Table):
        needed, held = min(max_length - 1, int(inputs.position.max(initial=0))), plan.values.shape[1]
        if held < needed:
            raise MicroStepError(
                f"{rule} was computed for segments of at most {held + 1} tokens, not {max_length}; compute it again"
            )
    return plan


def starts_of(rule: str, inputs: SegmentInputs, parameters: Mapping[str, float], max_length: int) -> NDArray[np.bool_]:
    """Return only [N] b, for valid parameters: for callers that try many."""
    return find_starts(plan_of(rule, inputs, parameters, max_length), inputs.forced, max_length)


def find_rule(name: str) -> Rule:
    if name in RULES:
        return RULES[name]
    raise MicroStepError(f"there is no segmentation rule {name!r}{_hint(name, list(RULES))}")


def valid_parameters(rule: str, given: Mapping[str, float]) -> dict[str, float]:
    """Return all parameters of a rule: the given ones, checked, and defaults for the others."""
    known = {parameter.name: parameter for parameter in find_rule(rule).parameters}
    for name in given:
        if name not in known:
            raise MicroStepError(f"the rule {rule} has no parameter {name!r}{_hint(name, list(known))}")
    return {name: _valid(rule, parameter, given.get(name, parameter.default)) for name, parameter in known.items()}


def check_max_length(max_length: int) -> None:
    """Raise MicroStepError unless this can be the largest number of tokens in a segment."""
    if not 1 <= max_length <= LONGEST or max_length != int(max_length):
        raise MicroStepError(
            f"the maximum segment length must be a whole number from 1 to {LONGEST:,}, got {max_length}"
        )


def check_target_length(target: float, max_length: int) -> None:
    """Raise MicroStepError unless segments under the cap can have this mean length."""
    if not 1 <= target <= max_length:
        raise MicroStepError(f"a mean length must be from 1 to the maximum segment length {max_length}, got {target:g}")


def _valid(rule: str, parameter: Parameter, value: float) -> float:
    name = f"{parameter.name} of the rule {rule}"
    if math.isnan(value) or not parameter.low <= value <= parameter.high:
        raise MicroStepError(f"{name} must be from {parameter.low:g} to {parameter.high:g}, got {value:g}")
    if parameter.integer and value != int(value):
        raise MicroStepError(f"{name} must be a whole number, got {value:g}")
    return int(value) if parameter.integer else float(value)


def _hint(name: str, known: list[str]) -> str:
    if not known:
        return "; it takes none"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(known)}"
