"""Refuse numbers that are not finite, in one sentence that says what to do.

Where an activation passes the largest number of its precision (65,504 in float16), everything after it is NaN, logits
included. No score, token or loss is computed from those. A single logit of minus infinity is different: it gives a word
the probability 0, which is legal. If that word occurs nevertheless, its surprisal is infinite and is reported as such.
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
    """Raise NumericalError if any token is bad."""
    count = int(bad.sum())
    if count:
        raise not_finite(model, f"{count:,} of {len(bad):,} {of} have {what}")


def check_states(model: PreTrainedModel, states: Tensor, what: str, of: str = "tokens") -> None:
    """Raise NumericalError if numbers of any shape [N, ...] hold NaN or infinity."""
    check_finite(model, ~states.detach().isfinite().flatten(1).all(1), what, of)


class FiniteLogits(LogitsProcessor):  # type: ignore[misc]
    """A logits processor for transformers' own `generate` that records rows whose logits are not finite.

    It does not wait for the GPU at each token: `check` looks once, at the end.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.bad: Tensor | None = None  # [B]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores [B, V], with zeros in rows that are not finite, so that a token can still be sampled."""
        bad = ~scores.amax(-1).isfinite()
        self.bad = bad if self.bad is None else self.bad | bad
        return scores.masked_fill(bad[:, None], 0)

    def check(self) -> None:
        if self.bad is not None:
            check_finite(self.model, self.bad, of="answers")


def not_finite(model: PreTrainedModel, what: str) -> NumericalError:
    names = (getattr(part, "name_or_path", None) for part in (model, getattr(model, "base", None)))
    name = next((str(candidate) for candidate in names if candidate), "the model")
    return NumericalError(f"{name}: {what} that are not finite in {_dtype(model)}; {_remedy(model)}")


def _dtype(model: PreTrainedModel) -> str:
    return str(model.dtype).removeprefix("torch.")


def _remedy(model: PreTrainedModel) -> str:
    damaged = damaged_weights(model)
    if damaged and model.dtype != torch.float16:
        return f"its weights are not finite either (first: {damaged}): the file is damaged, or its training diverged"
    if damaged and bool(dict(model.named_parameters())[damaged].isnan().any()):  # rounding gives infinity, never NaN
        return f"its weights hold NaN (first: {damaged}): the file is damaged, or its training diverged"
    if model.dtype == torch.float16:
        return "load it as bfloat16 or float32"
    if model.dtype == torch.float32:
        return "its weights are finite: check that its config.json belongs to these weights"
    return "load it as float32"


@torch.no_grad()
def damaged_weights(model: nn.Module) -> str | None:
    """Return the name of the first weight that holds NaN or infinity, or None."""
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            return name
    return None
