"""All layers and heads of one text: a small map and statistics of each head, computed during one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.attention.layer import LayerAttention
from analysis.attention.pooling import Pool, PooledGrid
from analysis.attention.positions import AttentionPositions
from analysis.attention.statistics import STATISTICS, statistic
from model.errors import ModelError
from model.hub.loading import LoadedModel
from model.progress import Progress
from model.short_repr import ShortRepr

if TYPE_CHECKING:
    from model.causal_lm.attention_capture import AttentionRows

CELLS = 64  # per side of a small map
_BLOCK_ELEMENTS = 1 << 21  # attention weights at a time: more do not fit the processor's caches, and take twice as long


@dataclass(frozen=True, eq=False, repr=False)
class HeadStatistics(ShortRepr):
    """Statistics of L layers of H heads over P positions."""

    reading: AttentionPositions
    layers: tuple[int, ...]  # their numbers in the model, from 0
    statistics: NDArray[np.float64]  # [S, L, H] in the order of STATISTICS; NaN where undefined

    def __post_init__(self) -> None:
        shape = self.statistics.shape
        if len(shape) != 3 or shape[:2] != (len(STATISTICS), len(self.layers)):
            raise ValueError(f"statistics must be [{len(STATISTICS)}, {len(self.layers)}, H], got {shape}")

    @property
    def heads(self) -> int:
        return int(self.statistics.shape[2])

    @property
    def step(self) -> int:
        return PooledGrid(len(self.reading), CELLS).step

    def strongest(self) -> tuple[int, int]:
        """Layer and head of the highest induction score, which the page opens with."""
        scores = np.nan_to_num(self.of("induction"))
        layer, head = np.unravel_index(int(scores.argmax()), scores.shape)
        return self.layers[int(layer)], int(head)

    def of(self, name: str) -> NDArray[np.float64]:
        """[L, H] a statistic; raises as `statistic`."""
        values: NDArray[np.float64] = self.statistics[list(STATISTICS).index(statistic(name).name)]
        return values

    def table(self) -> pd.DataFrame:
        return head_table(self.layers, {each.column: self.of(name) for name, each in STATISTICS.items()})


@dataclass(frozen=True, eq=False, repr=False)
class Overview(HeadStatistics):
    """All heads with their small maps."""

    pool: Pool
    maps: NDArray[np.float32]  # [L, H, C, C] pooled weights; NaN where a cell has no key before its query
    kept: LayerAttention | None = None  # a layer whose maps were asked for in full

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.maps.shape[:2] != self.statistics.shape[1:]:
            raise ValueError(f"maps must be {self.statistics.shape[1:]} with [C, C] each, got {self.maps.shape}")


@dataclass(frozen=True, eq=False, repr=False)
class AttentionOpening(HeadStatistics):
    """What the page opens with, small enough to be stored: no maps; what each key receives in one head."""

    received: NDArray[np.float32]  # [P] in the strongest head, the mean weight from the queries that see the key

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.received.shape != (len(self.reading),):
            raise ValueError(f"received must be [{len(self.reading)}], got {self.received.shape}")


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
    from analysis.attention.passes.attend import attend, check_layers  # these need torch
    from analysis.attention.passes.head_sums import HeadSums, Targets
    from analysis.attention.passes.pooler import Pooler
    from model.causal_lm.attention_layers import with_attention

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
            rows = attended.rows(begin, end, None)
            pooler.add(begin, rows)
            tally.add(begin, rows, attended.visible(begin, end))
        maps[layer], numbers[layer] = pooler.done(), tally.done()
        if layer == keep:
            kept.append(LayerAttention(reading, layer, attended))

    attend(loaded, reading, chosen, look, progress)
    return Overview(
        reading,
        chosen,
        np.stack([numbers[layer] for layer in chosen], 1),
        pool,
        np.stack([maps[layer] for layer in chosen]),
        kept[0] if kept else None,
    )
