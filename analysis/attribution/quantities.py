"""What can be attributed: the quantities, the tokens at which each is defined, and the baselines. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.options import Baseline
from model.text.document import TEMPLATE
from model.text.encoding import EncodedText

Bools = NDArray[np.bool_]
BASELINES: dict[Baseline, str] = {
    "mean": "the mean embedding of the vocabulary",
    "zero": "an embedding of zeros",
    "eos": "the embedding of the padding token, or of the end token if there is none",
}


@dataclass(frozen=True)
class AttributionTarget:
    """A number at a token that can be attributed."""

    name: str
    title: str
    meaning: str
    unit: str
    information: bool = False  # in nats, and can be shown in bits
    segmented: bool = False  # needs a micro_step model and the segments of a strategy
    pair: bool = False  # needs two models


QUANTITIES: dict[str, AttributionTarget] = {
    target.name: target
    for target in (
        AttributionTarget(
            "entropy", "entropy", "H = −Σ p ln p of the prediction at the token: how open the choice is", "nats", True
        ),
        AttributionTarget("surprisal", "surprisal", "−ln p of the actual token", "nats", True),
        AttributionTarget(
            "kl",
            "KL(A||B)",
            "Σ p ln(p / q) of model A's prediction p and B's q at the token",
            "nats",
            True,
            pair=True,
        ),
        AttributionTarget(
            "micro_confidence",
            "micro confidence",
            "the micro decoder's largest probability at the token, which stands inside a segment",
            "probability",
            segmented=True,
        ),
        AttributionTarget(
            "stop",
            "decision to end",
            "the stop head's logit that the segment ends before the token; it ends above 0",
            "logit",
            segmented=True,
        ),
    )
}


def eligible(encoded: EncodedText, quantity: str, starts: Bools | None, most: int | None) -> Bools:
    """[N] whether a quantity is defined at each token.

    Args:
        encoded: N tokens.
        quantity: a name in `QUANTITIES`.
        starts: [N] where segments start, for quantities of a micro_step model.
        most: the longest segment M of that model.
    """
    own = encoded.role != TEMPLATE
    defined: Bools = np.concatenate([[False], np.cumsum(own)[:-1] > 0])
    if starts is None or not QUANTITIES[quantity].segmented:
        return defined
    place = _slots(starts)
    if quantity == "micro_confidence":
        return defined & (place > 0)
    before = np.concatenate([[0], place[:-1]])
    defined[: max(0, 2 - len(encoded.prefix))] = False  # no segment could end before these tokens
    return defined if most is None else defined & (before < most - 1)


def _slots(starts: Bools) -> NDArray[np.int64]:
    """[N] the place of each token in its segment, from 0."""
    at = np.arange(len(starts))
    slots: NDArray[np.int64] = at - np.maximum.accumulate(np.where(starts, at, 0))
    return slots
