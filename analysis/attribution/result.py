"""The result of an attribution: a value for each token before the target, and how faithful they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.faithfulness import Faithfulness
from analysis.attribution.methods import Attributed
from model.hub.model_info import ModelInfo
from model.short_repr import ShortRepr
from model.text.encoding import EncodedText


@dataclass(frozen=True, eq=False, repr=False)
class UnitSegments(ShortRepr):
    """The starts of a strategy's segments in a text."""

    starts: NDArray[np.bool_]  # [N]
    strategy: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, repr=False)
class Attribution(ShortRepr):
    """A quantity at one token, attributed to the t tokens before it. Compared by identity."""

    facts: tuple[ModelInfo, ...]  # of the model; for KL, of A and B
    encoded: EncodedText  # N tokens
    target: int  # t
    values: NDArray[np.float64]  # [t]; NaN where a token is not attributed
    batches: NDArray[np.float64] | None  # [5, t] of Shapley sampling
    feature: NDArray[np.int64]  # [t] tokens that were replaced together have the same number
    found: Attributed  # F, delta, steps and passes
    faithfulness: Faithfulness
    notes: tuple[str, ...] = ()

    @property
    def standard_error(self) -> NDArray[np.float64] | None:
        """[t] of Shapley sampling, else None."""
        if self.batches is None:
            return None
        error: NDArray[np.float64] = self.batches.std(axis=0, ddof=1) / np.sqrt(len(self.batches))
        return error
