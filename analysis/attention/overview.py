"""All layers and heads of one text at once: a small map and the statistics of each, computed inside one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor

from analysis.attention.layer import LayerAttention
from analysis.attention.pooling import Pool, PooledGrid, Pooler
from analysis.attention.positions import AttentionPositions, attend, check_layers
from analysis.attention.statistics import STATISTICS, HeadSums, Targets, statistic
from model.causal_lm.attention_capture import AttentionRows
from model.causal_lm.attention_layers import with_attention
from model.causal_lm.forward import Progress
from model.errors import ModelError
from model.hub.loading import LoadedModel
from model.short_repr import ShortRepr

CELLS = 64  # a side of a small map
_BLOCK_ELEMENTS = 1 << 21  # attention weights at a time: more leave the processor's caches, and cost twice the time


@dataclass(frozen=True, eq=False, repr=False)
class Overview(ShortRepr):
    """L layers of H heads over P positions."""

    reading: AttentionPositions
    layers: tuple[int, ...]  # which they are in the model
    pool: Pool
    maps: NDArray[np.float32]  # [L, H, C, C] pooled weights; NaN where a cell has no key before its query
    statistics: NDArray[np.float64]  # [S, L, H] in the order of STATISTICS; NaN where undefined
    kept: LayerAttention | None = None  # a layer that was to be looked at as well

    def __post_init__(self) -> None:
        layers, heads = self.maps.shape[:2]
        if layers != len(self.layers) or self.statistics.shape != (len(STATISTICS), layers, heads):
            raise ValueError(
                f"maps must be [{len(self.layers)}, H, C, C] and statistics [{len(STATISTICS)}, L, H], got"
                f" {self.maps.shape} and {self.statistics.shape}"
            )

    @property
    def heads(self) -> int:
        """H."""
        return int(self.maps.shape[1])

    @property
    def step(self) -> int:
        """Positions of a cell of the maps."""
        return PooledGrid(len(self.reading), CELLS).step

    def of(self, name: str) -> NDArray[np.float64]:
        """[L, H] a statistic; an error as `statistic`."""
        found: NDArray[np.float64] = self.statistics[list(STATISTICS).index(statistic(name).name)]
        return found

    def table(self) -> pd.DataFrame:
        """A row a layer and head: layer, head and the statistics."""
        layer, head = np.repeat(self.layers, self.heads), np.tile(np.arange(self.heads), len(self.layers))
        return pd.DataFrame({"layer": layer, "head": head, **{name: self.of(name).ravel() for name in STATISTICS}})


def blocks(n: int, heads: int) -> Iterator[tuple[int, int]]:
    """Queries [begin, end) whose rows, of all heads, stay within a block."""
    begin = 0
    while begin < n:
        end = min(n, begin + max(1, min(256, _BLOCK_ELEMENTS // (heads * n))))
        yield begin, end
        begin = end


def overview(
    loaded: LoadedModel,
    reading: AttentionPositions,
    layers: Sequence[int] | None = None,
    pool: Pool = "max",
    keep: int | None = None,
    progress: Progress | None = None,
) -> Overview:
    """Pool and count the attention of all heads of the chosen layers, each as soon as it is known.

    Args:
        loaded: the model.
        reading: what it reads.
        layers: which, from 0; all that have attention if None.
        pool: what a cell of a small map holds.
        keep: a chosen layer whose queries and keys are kept, so that its maps can be looked at in full.
        progress: told the share done; may raise to stop.

    Raises:
        MicroStepError: no such layer or pooling.
        ModelError, TooLarge, TextError: as `attend`.
    """
    chosen = check_layers(loaded.model, with_attention(loaded.model) if layers is None else layers)
    n, targets = len(reading), Targets(reading, loaded.model.device)
    maps: dict[int, NDArray[np.float32]] = {}
    numbers: dict[int, NDArray[np.float64]] = {}
    kept: list[LayerAttention] = []

    def look(layer: int, attended: AttentionRows) -> None:
        heads = attended.heads
        if maps and (usual := len(next(iter(maps.values())))) != heads:
            raise ModelError(
                f"layer {layer} of {loaded.facts.family} has {heads} heads, but the layers before it have {usual}:"
                " choose layers with equal numbers of heads"
            )
        pooler, tally = Pooler(PooledGrid(n, CELLS), pool, heads, attended.device), HeadSums(targets, heads)
        for begin, end in blocks(n, heads):
            rows: Tensor = attended.rows(begin, end, None)
            pooler.add(begin, rows)
            tally.add(begin, rows, attended.visible(begin, end))
        maps[layer], numbers[layer] = pooler.done(), tally.done()
        if layer == keep:
            kept.append(LayerAttention(reading, layer, attended))

    attend(loaded, reading, chosen, look, progress)
    return Overview(
        reading,
        chosen,
        pool,
        np.stack([maps[layer] for layer in chosen]),
        np.stack([numbers[layer] for layer in chosen], 1),
        kept[0] if kept else None,
    )
