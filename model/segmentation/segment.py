"""Cut tokens into segments: `segment` applies a rule of `RULES` to one row, `segment_rows` to several.

b_t = 1 when token t starts a segment. The first token of a row does, so does one without scores, the first that has
them, every token of the prompt and the first after it; a segment has at most M tokens (segmentation_cut.py says how
the cap meets the rules). Knows stored scores only: what needs the model is computed in segmentation_attention.py.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.errors import MicroStepError
from model.segmentation.boundaries import Plan, Pointwise, Table, cut
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

MAX_LENGTH = 4  # M where nothing else is said


@dataclass(frozen=True, repr=False)
class Segmentation(ShortRepr):
    """Where a rule cuts N tokens, and what it compared."""

    starts: NDArray[np.bool_]  # [N] b
    value: NDArray[np.float32]  # [N] `Rule.value` given the segment before; NaN where there was nothing to compare
    rule: str
    parameters: Mapping[str, float]  # all of the rule's, defaults included
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
        """[N] the segment of each token, from 0."""
        return np.cumsum(self.starts, dtype=np.int64) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[S] tokens of each segment."""
        return np.diff(np.append(np.flatnonzero(self.starts), len(self))).astype(np.int64)


def segment(rule: str, inputs: SegmentInputs, max_length: int = MAX_LENGTH, **parameters: float) -> Segmentation:
    """Cut one row, or rows that were laid end to end.

    Args:
        rule: a name in `RULES`.
        inputs: what it looks at.
        max_length: M, the most tokens that a segment has.
        parameters: of the rule; defaults for those that are not given.

    Raises:
        MicroStepError: unknown rule or parameter, a value out of range, or the inputs lack what the rule needs.
    """
    chosen = valid_parameters(rule, parameters)
    check_max_length(max_length)
    plan = plan_of(rule, inputs, chosen, max_length)
    starts = cut(plan, inputs.forced, max_length)
    if isinstance(plan, Pointwise):
        value = plan.compared.astype(np.float32)
    else:
        value = np.where(inputs.row_starts, np.nan, plan.compared(starts)).astype(np.float32)
    return Segmentation(starts, value, rule, chosen, max_length)


def segment_rows(
    rule: str, rows: Sequence[SegmentInputs], max_length: int = MAX_LENGTH, **parameters: float
) -> list[Segmentation]:
    """Cut several rows of any lengths in one pass; each comes out as if alone. Errors as `segment`."""
    if not rows:
        return []
    every = segment(rule, SegmentInputs.join(rows), max_length, **parameters)
    ends = np.cumsum([len(row) for row in rows])[:-1]
    parts = zip(np.split(every.starts, ends), np.split(every.value, ends), strict=True)
    return [Segmentation(starts, value, rule, every.parameters, max_length) for starts, value in parts]


def entropy_bound(confidence: NDArray[np.floating], vocabulary: int) -> NDArray[np.float64]:
    """The most nats that a distribution over V words can have if its likeliest word has probability c.

    -c ln c - (1 - c) ln((1 - c) / (V - 1)): all other words equally likely (Fano's inequality).

    Args:
        confidence: [N] c, from 1 / V to 1.
        vocabulary: V, the width of the model's logits, at least 2.
    """
    c = np.asarray(confidence, dtype=np.float64)
    rest = 1 - c
    with np.errstate(divide="ignore", invalid="ignore"):
        bound = -c * np.log(c) - rest * np.log(rest / (vocabulary - 1))
    return np.where(rest <= 0, np.where(np.isnan(c), np.nan, 0.0), bound)


def plan_of(rule: str, inputs: SegmentInputs, parameters: Mapping[str, float], max_length: int) -> Plan:
    """What a rule decides, under valid parameters.

    Raises:
        MicroStepError: the inputs lack what the rule needs.
    """
    plan = RULES[rule].plan(inputs, parameters)
    if isinstance(plan, Table):
        needed, held = min(max_length - 1, int(inputs.position.max(initial=0))), plan.values.shape[1]
        if held < needed:
            raise MicroStepError(
                f"{rule} was computed for segments of at most {held + 1} tokens, not {max_length}; compute it again"
            )
    return plan


def starts_of(rule: str, inputs: SegmentInputs, parameters: Mapping[str, float], max_length: int) -> NDArray[np.bool_]:
    """[N] b alone, under valid parameters: for those who try many."""
    return cut(plan_of(rule, inputs, parameters, max_length), inputs.forced, max_length)


def find_rule(name: str) -> Rule:
    """The rule of that name.

    Raises:
        MicroStepError: there is none; the nearest is named.
    """
    if name in RULES:
        return RULES[name]
    raise MicroStepError(f"there is no segmentation rule {name!r}{_hint(name, list(RULES))}")


def valid_parameters(rule: str, given: Mapping[str, float]) -> dict[str, float]:
    """All parameters of a rule: the given ones, checked, and the others' defaults.

    Raises:
        MicroStepError: unknown rule or parameter, or a value out of its range or no whole number where one is due.
    """
    known = {parameter.name: parameter for parameter in find_rule(rule).parameters}
    for name in given:
        if name not in known:
            raise MicroStepError(f"the rule {rule} has no parameter {name!r}{_hint(name, list(known))}")
    return {name: _valid(rule, parameter, given.get(name, parameter.default)) for name, parameter in known.items()}


def check_max_length(max_length: int) -> None:
    """Raise MicroStepError unless segments may have so many tokens."""
    if max_length < 1 or max_length != int(max_length):
        raise MicroStepError(f"a segment's most tokens must be a whole number of at least 1, got {max_length}")


def check_target_length(target: float, max_length: int) -> None:
    """Raise MicroStepError unless segments under the cap may have this mean length."""
    if not 1 <= target <= max_length:
        raise MicroStepError(f"a mean length must be from 1 to the most tokens a segment {max_length}, got {target:g}")


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
    return f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
