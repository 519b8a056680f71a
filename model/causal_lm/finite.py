"""Numbers that are not finite: what a run refuses, in one sentence that says what to do.

Where an activation passes the largest number of its precision (65,504 in float16), everything after it is NaN, and so
are the logits. No score, token or loss is made of those. A single logit of minus infinity is another matter: it is a
word of probability 0, which is legal; where that word comes all the same, its surprisal is infinite, and said to be.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LogitsProcessor

from model.errors import NumericalError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_finite(
    model: PreTrainedModel, bad: NDArray[np.bool_] | Tensor, what: str = "logits", of: str = "tokens"
) -> None:
    """Raise where anything is bad.

    Args:
        model: that gave it.
        bad: [N] the tokens, of those that were computed, whose numbers are NaN or infinite.
        what: these numbers, in the plural.
        of: what has them, in the plural.

    Raises:
        NumericalError: with how many there are, and what to do.
    """
    count = int(bad.sum())
    if count:
        raise not_finite(model, f"{count:,} of {len(bad):,} {of} have {what}")


def check_states(model: PreTrainedModel, states: Tensor, what: str, of: str = "tokens") -> None:
    """The same for numbers in any shape [N, ...], none of which may be NaN or infinite."""
    check_finite(model, ~states.detach().isfinite().flatten(1).all(1), what, of)


class FiniteLogits(LogitsProcessor):  # type: ignore[misc]
    """Watches transformers' own `generate`: hands logits on as they are, and remembers where they were not finite.

    Nothing waits for a GPU at a token: `check` looks once, at the end.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.bad: Tensor | None = None  # [B]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores [B, V]; zeros in rows that are not finite, from which a token can still be drawn."""
        bad = ~scores.amax(-1).isfinite()
        self.bad = bad if self.bad is None else self.bad | bad
        return scores.masked_fill(bad[:, None], 0)

    def check(self) -> None:
        """Raise NumericalError if logits were not finite anywhere."""
        if self.bad is not None:
            check_finite(self.model, self.bad, of="answers")


def not_finite(model: PreTrainedModel, what: str) -> NumericalError:
    """The error: `what` holds such numbers, in words that end with their name."""
    named = (getattr(each, "name_or_path", None) for each in (model, getattr(model, "base", None)))
    name = next((str(each) for each in named if each), "the model")
    return NumericalError(f"{name}: {what} that are not finite in {_dtype(model)}; {_remedy(model)}")


def _dtype(model: PreTrainedModel) -> str:
    return str(model.dtype).removeprefix("torch.")


def _remedy(model: PreTrainedModel) -> str:
    damaged = damaged_weights(model)
    if damaged and model.dtype != torch.float16:
        return f"its weights are not either (first {damaged}): the file is damaged, or its training diverged"
    if damaged and bool(dict(model.named_parameters())[damaged].isnan().any()):  # rounding gives infinity, never NaN
        return f"its weights hold NaN (first {damaged}): the file is damaged, or its training diverged"
    if model.dtype == torch.float16:
        return "load it as bfloat16 or float32"
    if model.dtype == torch.float32:
        return "its weights are finite: see whether its config.json is that of its weights"
    return "load it as float32"


@torch.no_grad()
def damaged_weights(model: nn.Module) -> str | None:
    """The name of the first weight that holds NaN or infinity; None where there is none."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            return name
    return None
