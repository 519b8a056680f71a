"""The attention of one layer, computed from its queries and keys: any head and any rows without another model pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.attention.positions import AttentionPositions, check_indices
from model.hub.loading import LoadedModel
from model.progress import Progress
from model.short_repr import ShortRepr

if TYPE_CHECKING:
    from model.causal_lm.attention_capture import AttentionRows


@dataclass(frozen=True, eq=False, repr=False)
class LayerAttention(ShortRepr):
    """The queries and keys of one layer: some MB, where its maps would take GB."""

    reading: AttentionPositions
    layer: int
    attended: AttentionRows

    def rows_of(self, head: int | None) -> HeadRows:
        """The map of one head; the mean over heads if None.

        Raises:
            MicroStepError: the layer has no such head.
        """
        if head is not None:
            check_indices("head", [head], self.attended.heads)
        return HeadRows(self, head)


@dataclass(frozen=True, eq=False)
class HeadRows:
    """The map of one head of a layer, or the mean over its heads."""

    of: LayerAttention
    head: int | None

    @property
    def size(self) -> int:
        return len(self.of.reading)

    def rows(self, begin: int, end: int) -> NDArray[np.float32]:
        """[end - begin, end] weights of the queries begin .. end - 1."""
        import torch

        heads: Sequence[int] | None = None if self.head is None else [self.head]
        with torch.inference_mode():
            weights = self.of.attended.rows(begin, end, heads)
            rows: NDArray[np.float32] = (weights.mean(0) if self.head is None else weights[0]).cpu().numpy()
        return rows


def layer_attention(
    loaded: LoadedModel, reading: AttentionPositions, layer: int, progress: Progress | None = None
) -> LayerAttention:
    """Run the model up to a layer; raises as `attend`."""
    from analysis.attention.passes.attend import attend  # needs torch

    captured: list[LayerAttention] = []

    def keep(_: int, attended: AttentionRows) -> None:
        captured.append(LayerAttention(reading, layer, attended))

    attend(loaded, reading, [layer], keep, progress)
    return captured[0]
