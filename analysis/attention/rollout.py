"""Attention rollout: how much of each position's state comes from each position of the input (Abnar & Zuidema 2020).

R_l = (A_l + I) / 2 R_{l-1}, where A_l is the mean over the heads of layer l, and R_{-1} = I. It assumes that half of
each state comes through the attention, and half through the residual stream. The rows of R sum to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.attention.positions import AttentionPositions
from model.causal_lm.device_memory import available_memory, spoken_bytes
from model.errors import TooLarge
from model.hub.loading import LoadedModel
from model.progress import Progress
from model.short_repr import ShortRepr

if TYPE_CHECKING:
    from torch import Tensor

    from model.causal_lm.attention_capture import AttentionRows

_BLOCK_ELEMENTS = 1 << 21
_SPARE = 0.9  # share of the free memory that a run may plan with


@dataclass(frozen=True, eq=False, repr=False)
class Rollout(ShortRepr):
    """The rollout through layers 0 .. layer."""

    reading: AttentionPositions
    layer: int
    whole: NDArray[np.float32]  # [P, P], nothing after the diagonal

    @property
    def size(self) -> int:
        return len(self.whole)

    def rows(self, begin: int, end: int) -> NDArray[np.float32]:
        """[end - begin, end] weights of the queries begin .. end - 1."""
        return self.whole[begin:end, :end]


def rollout(loaded: LoadedModel, reading: AttentionPositions, layer: int, progress: Progress | None = None) -> Rollout:
    """Compute the rollout through the layers 0 .. layer; holds one [P, P] array."""
    import torch

    from analysis.attention.passes.attend import attend, check_layers

    check_layers(loaded.model, [layer])
    n = len(reading)
    needed, free = 4 * n * n, available_memory(loaded.model.device)
    if needed > _SPARE * free:
        raise TooLarge(
            f"a rollout over {n:,} positions takes {spoken_bytes(needed)}, {spoken_bytes(free)} are free;"
            " shorten the text"
        )
    whole = torch.eye(n, device=loaded.model.device)
    attend(loaded, reading, range(layer + 1), lambda _, attended: _through(attended, whole), progress)
    return Rollout(reading, layer, whole.cpu().numpy())


def _through(attended: AttentionRows, whole: Tensor) -> None:
    """Apply one layer in place, from the last block to the first, since a row needs only earlier rows."""
    n, heads = len(whole), attended.heads
    step = max(1, min(256, _BLOCK_ELEMENTS // (heads * n)))
    for begin in reversed(range(0, n, step)):
        end = min(n, begin + step)
        mean = attended.rows(begin, end, None).mean(0)
        whole[begin:end, :end] = (mean @ whole[:end, :end] + whole[begin:end, :end]) / 2
