"""What a micro decoder would draft after each token of an answer: the record, without what computes it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.short_repr import ShortRepr


@dataclass(frozen=True, repr=False)
class EveryDraft(ShortRepr):
    """Up to M - 1 drafted tokens after each of T tokens, as if tau were 0."""

    ids: NDArray[np.int64]  # [T, M - 1], -1 where the draft has ended
    probability: NDArray[np.float32]  # [T, M - 1] of each, under the micro decoder; NaN where the draft has ended
    value: NDArray[np.float32]  # [T, M - 1] what the rule compares with tau; NaN where the draft has ended
