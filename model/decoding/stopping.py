"""The rules that end a segment during generation, and the reasons why a segment ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model.errors import MicroStepError

if TYPE_CHECKING:
    from torch import Tensor

Why = Literal["unsure", "cap", "cost", "end", "limit", "disagreed", "time"]
REASONS: dict[Why, str] = {
    "unsure": "the rule did not keep the next token",
    "cap": "the segment has M tokens",
    "cost": "a longer draft would have taken more time than it saves",
    "end": "the answer ended",
    "limit": "the limit of new tokens was reached",
    "disagreed": "the base chose another token than the draft",
    "time": "max_time was reached",
}


@dataclass(frozen=True)
class ProposedToken:
    """A next token that the micro decoder proposes for R segments, and the values that a rule may use."""

    slot: int  # its place in the segment, from 1
    macro_step: Tensor  # [R] from 0
    probability: Tensor  # [R] of the token under the micro decoder; NaN for rules that decide before it is computed
    product: Tensor  # [R] of the probabilities of the segment's tokens, this one included
    stop: Tensor | None  # [R] probability that the segment ends before it; None without a stop head


@dataclass(frozen=True)
class StopRule:
    """Decides which segments continue."""

    name: str
    meaning: str
    keep: Callable[[ProposedToken, Tensor], Tensor]  # for tau [R]: [R] bool, the segment continues with the token
    early: bool = False  # needs no token, and without a stop head no state either, so neither is computed in vain
    needs_stop_head: bool = False


def _stop_head(offer: ProposedToken, tau: Tensor) -> Tensor:
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
            "the segment continues while the stop head gives this a probability of at least tau",
            _stop_head,
            early=True,
            needs_stop_head=True,
        ),
    )
}


def find_stop_rule(rule: str | StopRule, stop_head: bool) -> StopRule:
    if isinstance(rule, StopRule):
        return rule
    if rule not in RULES:
        raise MicroStepError(f"there is no stopping rule {rule!r}; choose from {', '.join(RULES)}")
    if RULES[rule].needs_stop_head and not stop_head:
        raise MicroStepError(f"the rule {rule} needs a stop head, but this model has none; use confidence")
    return RULES[rule]
