"""All layers and heads of one text: a small map and statistics of each head, computed during one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from model.errors import ModelError
from model.hub.loading import LoadedModel
from model.progress import Progress
from model.short_repr import ShortRepr

CELLS = 64  # per side of a small map
_BLOCK_ELEMENTS = 1 << 21  # attention weights at a time: more do not fit the processor's caches, and take twice as long


@dataclass(frozen=True, eq=False, repr=False)
class Overview(ShortRepr):
    """L layers of H heads over P positions."""

    reading: AttentionPositions
    layers: tuple[int, ...]  # their numbers in the model, from 0
    pool: Pool
    maps: NDArray[np.float32]  # [L, H, C, C] pooled weights; NaN where a cell has no key before its query
    statistics: NDArray[np.float64]  # [S, L, H] in the order of STATISTICS; NaN where undefined
    kept: LayerAttention | None = None  # a layer whose maps were asked for in full

    def __post_init__(self) -> None:
        layers, heads = self.maps.shape[:2]
        if layers != len(self.layers) or self.statistics.shape != (len(STATISTICS), layers, heads):
            raise ValueError(
                f"maps must be [{len(self.layers)}, H, C, C] and statistics [{len(STATISTICS)}, L, H], got"
                f" {self.maps.shape} and {self.statistics.shape}"
            )

    @property
    def heads(self) -> int:
        return int(self.maps.shape[1])

    @property
    def step(self) -> int:
        return PooledGrid(len(self.reading), CELLS).step

    def of(self, name: str) -> NDArray[np.float64]:
        """[L, H] a statistic; raises as `statistic`."""
        values: NDArray[np.float64] = self.statistics[list(STATISTICS).index(statistic(name).name)]
        return values

    def table(self) -> pd.DataFrame:
        return head_table(self.layers, {name: self.of(name) for name in STATISTICS})


def head_table(layers: Sequence[int], columns: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """A row for each layer and head, from columns [L, H]."""
    heads = next(iter(columns.values())).shape[1]
    layer, head = np.repeat(layers, heads), np.tile(np.arange(heads), len(layers))
    return pd.DataFrame({"layer": layer, "head": head, **{name: values.ravel() for name, values in columns.items()}})


def blocks(n: int, heads: int) -> Iterator[tuple[int, int]]:
    """Queries [begin, end) in blocks small enough for the processor's caches."""
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
    """Pool and measure the attention of all heads of the chosen layers, layer by layer.

    Args:
        loaded: the model.
        reading: the positions that it reads.
        layers: from 0; all layers with attention if None.
        pool: how a cell of a small map is pooled.
        keep: a chosen layer whose queries and keys are kept, so that its maps can be shown in full.
        progress: receives the share done; may raise to stop.

    Raises:
        MicroStepError: the layer or the pooling does not exist.
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
