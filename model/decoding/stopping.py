"""When a segment ends while it is written: the rules, and why each segment did end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from model.errors import MicroStepError

Why = Literal["unsure", "cap", "end", "limit", "disagreed", "time"]
REASONS: dict[Why, str] = {
    "unsure": "the rule did not keep the next token",
    "cap": "the segment has M tokens",
    "end": "the answer ended",
    "limit": "there is room for no more new tokens",
    "disagreed": "the base chose another token than the draft",
    "time": "max_time was over",
}


@dataclass(frozen=True)
class ProposedToken:
    """A next token that the micro decoder offers to R segments, and what a rule may look at."""

    slot: int  # its place in the segment, from 1
    macro_step: int  # from 0
    probability: Tensor  # [R] of the token under the micro decoder; NaN for rules that decide before there is one
    product: Tensor  # [R] of the probabilities of the segment's tokens, this one included
    stop: Tensor | None  # [R] probability that the segment ends before it; None without a stop head


@dataclass(frozen=True)
class StopRule:
    """Decides which segments go on."""

    name: str
    meaning: str
    keep: Callable[[ProposedToken, float], Tensor]  # under tau: [R] bool, the segment goes on with the token
    early: bool = False  # it needs no token, and without a stop head no state either: none is computed in vain
    needs_stop_head: bool = False


def _stop_head(offer: ProposedToken, tau: float) -> Tensor:
    assert offer.stop is not None
    return 1 - offer.stop >= tau


RULES: dict[str, StopRule] = {
    rule.name: rule
    for rule in (
        StopRule(
            "confidence",
            "a token is kept while the micro decoder gives it a probability of at least tau",
            lambda offer, tau: offer.probability >= tau,
        ),
        StopRule(
            "product",
            "a token is kept while the probabilities of the segment's tokens multiply to at least tau",
            lambda offer, tau: offer.product >= tau,
        ),
        StopRule(
            "stop_head",
            "the segment goes on while the stop head says so with a probability of at least tau",
            _stop_head,
            early=True,
            needs_stop_head=True,
        ),
    )
}


def find_stop_rule(rule: str | StopRule, stop_head: bool) -> StopRule:
    """The rule of that name.

    Raises:
        MicroStepError: there is none, or it needs a stop head that the model lacks.
    """
    if isinstance(rule, StopRule):
        return rule
    if rule not in RULES:
        raise MicroStepError(f"there is no stopping rule {rule!r}; there are {', '.join(RULES)}")
    if RULES[rule].needs_stop_head and not stop_head:
        raise MicroStepError(f"the rule {rule} needs a stop head, and this model has none; use confidence")
    return RULES[rule]
