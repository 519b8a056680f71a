"""The attention of one layer, from its queries and keys alone: any head, any rows, with no further run of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.attention.positions import AttentionPositions, attend
from model.causal_lm.attention_capture import AttentionRows
from model.causal_lm.forward import Progress
from model.errors import MicroStepError
from model.hub.loading import LoadedModel
from model.short_repr import ShortRepr


@dataclass(frozen=True, eq=False, repr=False)
class LayerAttention(ShortRepr):
    """What one layer was given: queries and keys, some MB where its maps would take GB."""

    reading: AttentionPositions
    layer: int
    attended: AttentionRows

    @property
    def heads(self) -> int:
        """H."""
        return self.attended.heads

    def rows_of(self, head: int | None) -> HeadRows:
        """The map of one head; of all, averaged, if None.

        Raises:
            MicroStepError: no such head.
        """
        if head is not None and not 0 <= head < self.heads:
            raise MicroStepError(f"head must be from 0 to {self.heads - 1} for this model, got {head}")
        return HeadRows(self, head)


@dataclass(frozen=True, eq=False)
class HeadRows:
    """The map of a head of a layer, or of all its heads averaged."""

    of: LayerAttention
    head: int | None

    @property
    def size(self) -> int:
        """P."""
        return len(self.of.reading)

    def rows(self, begin: int, end: int) -> NDArray[np.float32]:
        """[end - begin, end] of the queries begin .. end - 1."""
        heads: Sequence[int] | None = None if self.head is None else [self.head]
        with torch.inference_mode():
            found = self.of.attended.rows(begin, end, heads)
            whole: NDArray[np.float32] = (found.mean(0) if self.head is None else found[0]).cpu().numpy()
        return whole


def layer_attention(
    loaded: LoadedModel, reading: AttentionPositions, layer: int, progress: Progress | None = None
) -> LayerAttention:
    """Run the model as far as a layer; errors as `attend`."""
    found: list[LayerAttention] = []

    def keep(_: int, attended: AttentionRows) -> None:
        found.append(LayerAttention(reading, layer, attended))

    attend(loaded, reading, [layer], keep, progress)
    return found[0]
