"""Attention as it is asked for: a reading of a text by a model, its overview, one layer of it, or its rollout.

Each is a question of its own, so that another layer, head, window or pin asks a model for no more than that.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from analysis.attention.layer import LayerAttention, layer_attention
from analysis.attention.maps import received
from analysis.attention.overview import AttentionOpening, Overview, overview
from analysis.attention.pooling import Pool
from analysis.attention.positions import AttentionPositions
from analysis.attention.rollout import Rollout, rollout
from analysis.query import ModelLoader, RunCost, scoring_cost
from analysis.segmentation.boundaries import starts_cost, starts_of
from analysis.segmentation.strategy import Segmenter
from model.hub.loading import LoadedModel, ModelSpec
from model.progress import Progress
from model.text.document import TextInput


@dataclass(frozen=True)
class PositionsQuery:
    """How one model reads a text: its positions, and their segments."""

    side: str  # A or B
    spec: ModelSpec
    text: TextInput
    segmenter: Segmenter = field(default_factory=Segmenter)
    cut_by: ModelSpec | None = None  # A, where B - A is looked at: scores of its own would cut B's text differently

    @property
    def specs(self) -> dict[str, ModelSpec]:
        return {self.side: self.spec} | ({"A": self.cut_by} if self.cut_by is not None else {})

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes: nothing but for scores that the strategy needs."""
        return starts_cost(loaded, self.text, self.segmenter)

    def passes(self, loaded: LoadedModel, count: float) -> RunCost:
        return scoring_cost(loaded, self.text, passes=count)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> AttentionPositions:
        from analysis.attention.passes.attend import encode_whole, merges, read  # these need torch

        loaded = load(self.spec)
        segmenter = self.segmenter
        if loaded.facts.micro_step is not None and merges(loaded):
            segmenter = segmenter.capped(loaded.facts.micro_step.max_segment_length)
        encoded, notes = encode_whole(loaded, self.text)
        cutter = loaded if self.cut_by is None else load(self.cut_by)
        starts, apart = starts_of(cutter, encoded, self.text, segmenter, progress)
        if len(starts) < len(encoded):
            notes = (*notes, f"the first {len(starts):,} of {len(encoded):,} tokens: more does not fit into memory")
        n = min(len(starts), len(encoded))
        under = " under A" if self.cut_by is not None else ""
        strategy = f"{segmenter.strategy}{under}, at most {segmenter.max_length} tokens"
        return read(loaded, encoded.head(n), starts[:n], strategy, (*notes, *apart))


@dataclass(frozen=True)
class OfPositions:
    """What is asked of a reading. A `reading` that was answered before may be given to `run`, where there is one."""

    of: PositionsQuery

    @property
    def specs(self) -> dict[str, ModelSpec]:
        return self.of.specs


@dataclass(frozen=True)
class OverviewQuery(OfPositions):
    """The small maps and statistics of the heads of all layers of a reading, or of those that are named."""

    pool: Pool = "max"
    layers: tuple[int, ...] | None = None

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes: a pass, and all rows of attention a second time."""
        return self.of.passes(loaded, 2.0)

    def run(
        self, load: ModelLoader, progress: Progress | None = None, reading: AttentionPositions | None = None
    ) -> Overview:
        reading = reading or self.of.run(load)
        return overview(load(self.of.spec), reading, self.layers, self.pool, progress=progress)


@dataclass(frozen=True)
class OpeningQuery(OfPositions):
    """What the page opens with. It is answered by what is stored; a page that needs a model asks for an overview."""

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes: that of an overview, and of a layer."""
        return self.of.passes(loaded, 3.0)

    def run(
        self, load: ModelLoader, progress: Progress | None = None, reading: AttentionPositions | None = None
    ) -> AttentionOpening:
        loaded = load(self.of.spec)
        found = overview(loaded, reading or self.of.run(load), progress=progress)
        layer, head = found.strongest()
        rows = layer_attention(loaded, found.reading, layer).rows_of(head)
        return AttentionOpening(found.reading, found.layers, found.statistics, received(rows))


@dataclass(frozen=True)
class LayerQuery(OfPositions):
    """One layer of a reading."""

    layer: int

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes: the layers up to this one."""
        return self.of.passes(loaded, min(1.0, (self.layer + 1) / loaded.facts.layers))

    def run(
        self, load: ModelLoader, progress: Progress | None = None, reading: AttentionPositions | None = None
    ) -> LayerAttention:
        return layer_attention(load(self.of.spec), reading or self.of.run(load), self.layer, progress)


@dataclass(frozen=True)
class RolloutQuery(OfPositions):
    """The rollout of a reading through the layers 0 .. layer."""

    layer: int

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes: the pass, its rows, and a product of [P, P] a layer."""
        read = self.of.passes(loaded, 2.0)
        work, memory = (self.layer + 1) * read.tokens**3 / 3, 4 * read.tokens**2
        return replace(read, work=read.work + work, memory=read.memory + memory)

    def run(
        self, load: ModelLoader, progress: Progress | None = None, reading: AttentionPositions | None = None
    ) -> Rollout:
        return rollout(load(self.of.spec), reading or self.of.run(load), self.layer, progress)
