"""Attention as it is looked at: of one model or the difference of two, which layer and head, at which level, where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from analysis.attention.layer import LayerAttention
from analysis.attention.maps import MapCells, MapRows, MapWindow, cells, received, row
from analysis.attention.overview import Overview
from analysis.attention.pooling import POOLS, Pool
from analysis.attention.positions import AttentionPositions, check_heads, check_layers
from analysis.attention.request import LayerQuery, OverviewQuery, PositionsQuery, RolloutQuery
from analysis.attention.rollout import Rollout
from analysis.attention.segments import SegmentRows
from analysis.attention.statistics import statistic
from analysis.query import ModelLoader
from analysis.segmentation.boundaries import only_text
from analysis.segmentation.features import FeatureOptions
from analysis.segmentation.segmented_text import MemoCache
from analysis.segmentation.strategy import Strategy
from analysis.view import Theme
from model.causal_lm.forward import Progress
from model.errors import MicroStepError
from model.hub.loading import ModelSpec
from model.short_repr import ShortRepr
from model.text.document import TextInput

Given = TypeVar("Given")
Source = Literal["head", "mean", "rollout"]
Level = Literal["tokens", "segments"]
SOURCES: dict[str, str] = {
    "head": "one head of the layer",
    "mean": "the mean over the heads of the layer",
    "rollout": "attention rollout through this layer and all before it: R = (A + I) / 2 R, heads averaged",
}
LEVELS: dict[str, str] = {
    "tokens": "a row and a column a position",
    "segments": "weights on a segment's keys summed, rows of its queries averaged",
}
MAPS = "maps"  # what the overview shows where it shows no statistic
CELLS = 320  # a side of the large map at most: what is sent of it stays below 2 MB


@dataclass(frozen=True)
class AttentionView:
    """How attention is looked at.

    Raises:
        MicroStepError: a choice that does not exist.
    """

    shown: str = MAPS  # "maps", or a statistic
    layer: int = 0
    head: int = 0
    source: Source = "head"
    level: Level = "tokens"
    queries: tuple[int, int] | None = None  # [from, to) of the map; None: all
    keys: tuple[int, int] | None = None
    theme: Theme = "light"
    pinned: int | None = None  # a character of the text: the query whose row is looked at

    def __post_init__(self) -> None:
        if self.shown != MAPS:
            statistic(self.shown)
        for what, given, known in (("source", self.source, SOURCES), ("level", self.level, LEVELS)):
            if given not in known:
                raise MicroStepError(f"unknown {what} {given!r}; use one of {', '.join(known)}")

    @property
    def what(self) -> str:
        """Which map is large, in words."""
        return {
            "head": f"layer {self.layer}, head {self.head}",
            "mean": f"layer {self.layer}, mean of its heads",
            "rollout": f"rollout through layer {self.layer}",
        }[self.source]


@dataclass(frozen=True)
class AttentionRequest:
    """One model on a text, or two that are subtracted."""

    models: tuple[tuple[str, ModelSpec], ...]  # ("A", spec); with ("B", spec) the difference B - A
    text: TextInput
    strategy: Strategy = PositionsQuery.strategy
    max_length: int = PositionsQuery.max_length
    how: FeatureOptions = field(default_factory=FeatureOptions)
    pool: Pool = "max"

    def __post_init__(self) -> None:
        if not 1 <= len(self.models) <= 2:
            raise MicroStepError(f"attention is of one model, or the difference of two; {len(self.models)} are given")
        if self.pool not in POOLS:
            raise MicroStepError(f"unknown pooling {self.pool!r}; use one of {', '.join(POOLS)}")

    def readings(self) -> list[PositionsQuery]:
        """A question a model. B - A is of the same segments: those that A's scores give, where scores decide."""
        first = None if only_text(self.strategy) else self.models[0][1]
        return [
            PositionsQuery(key, spec, self.text, self.strategy, self.max_length, self.how, first if place else None)
            for place, (key, spec) in enumerate(self.models)
        ]  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class AttentionSide(ShortRepr):
    """One model's part; what was not asked for is None."""

    key: str  # A, B
    reading: AttentionPositions
    overview: Overview | None = None
    rows: MapRows | None = None  # of the large map


@dataclass(frozen=True, eq=False, repr=False)
class AttentionResult(ShortRepr):
    """Attention of one model, or of two over the same positions."""

    request: AttentionRequest
    sides: tuple[AttentionSide, ...]
    view: AttentionView
    most: int = CELLS  # cells a side of the large map that are drawn
    kept: MemoCache = field(default_factory=MemoCache)

    def __post_init__(self) -> None:
        if len(self.sides) == 2:
            check_comparable(self.sides[0].reading, self.sides[1].reading)

    @property
    def difference(self) -> bool:
        """Whether B - A is looked at."""
        return len(self.sides) == 2

    @property
    def reading(self) -> AttentionPositions:
        """The positions, the same for both."""
        return self.sides[-1].reading

    @property
    def title(self) -> str:
        """Whose attention it is."""
        return "B − A" if self.difference else f"{self.sides[0].key} {self.sides[0].reading.facts.name}"

    def of(self, values: Callable[[AttentionSide], NDArray[np.floating]]) -> NDArray[np.float64]:
        """An array of the side, or B's minus A's.

        Raises:
            MicroStepError: two models of different layers and heads.
        """
        found = [np.asarray(values(side), dtype=np.float64) for side in self.sides]
        if not self.difference:
            return found[0]
        if found[0].shape != found[1].shape:
            raise MicroStepError("A and B have different numbers of layers or heads: choose one of them")
        return found[1] - found[0]

    def maps(self) -> NDArray[np.float64]:
        """[L, H, C, C] the small maps."""
        return self.of(lambda side: _there(side.overview).maps)

    def statistic(self, name: str) -> NDArray[np.float64]:
        """[L, H] a statistic."""
        return self.of(lambda side: _there(side.overview).of(name))

    @property
    def layers(self) -> tuple[int, ...]:
        """L layers of the overview."""
        return _there(self.sides[-1].overview).layers

    @property
    def size(self) -> int:
        """Queries, and keys, of the large map."""
        return _there(self.sides[-1].rows).size

    @property
    def window(self) -> MapWindow:
        """The part of the large map that is shown."""
        return MapWindow.of(self.size, self.view.queries, self.view.keys)

    def cells(self) -> MapCells:
        """What is drawn of the large map."""
        found = [self._cells(side) for side in self.sides]
        if not self.difference:
            return found[0]
        return dataclasses.replace(found[1], weight=found[1].weight - found[0].weight)

    @property
    def segmented(self) -> bool:
        """Whether a row of the large map is a segment of several positions."""
        return self.view.level == "segments" and not self.reading.merged

    def _cells(self, side: AttentionSide) -> MapCells:
        asked = self.window, self.most, self.request.pool
        return self.kept.get(("cells", side, *asked), lambda: cells(_there(side.rows), *asked))

    @property
    def query(self) -> int | None:
        """The row of the large map that is pinned."""
        at = self.reading.at(self.view.pinned)
        return at if at is None or not self.segmented else int(self.reading.segment[at])

    def spread(self) -> tuple[NDArray[np.float64], int | None]:
        """[size] what the pinned query attends to; without one, what each key receives. And which query it is."""
        query = self.query
        if query is None:
            return self.of(self._received), None
        return self.of(lambda side: row(_there(side.rows), query)), query

    def _received(self, side: AttentionSide) -> NDArray[np.floating]:
        return self.kept.get(("received", side), lambda: received(_there(side.rows)))

    def names(self) -> tuple[str, ...]:
        """[size] the text of each row of the large map."""
        if not self.segmented:
            return self.reading.words
        first = np.flatnonzero(self.reading.starts)
        words, after = self.reading.words, [*first[1:].tolist(), len(self.reading)]
        return tuple("".join(words[a:b]) for a, b in zip(first.tolist(), after, strict=True))

    def boundaries(self) -> NDArray[np.int64]:
        """Rows of the large map before which a segment starts; none where each row is one."""
        if self.segmented or self.reading.merged:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.reading.starts)

    def of_rows(self) -> NDArray[np.int64]:
        """[P] the row of the large map that each position is in."""
        return self.reading.segment if self.segmented else np.arange(len(self.reading))


def _there(value: Given | None) -> Given:
    if value is None:
        raise MicroStepError("this figure shows what was not asked for")
    return value


def check_comparable(a: AttentionPositions, b: AttentionPositions) -> None:
    """Raise MicroStepError if two readings are not of the same tokens in the same positions."""
    if a.facts.tokenizer_hash != b.facts.tokenizer_hash or a.lead != b.lead:
        raise MicroStepError("B − A needs two models with the same tokenizer, which cut the text into the same tokens")
    if not np.array_equal(a.encoded.ids, b.encoded.ids):
        raise MicroStepError("B − A needs the same tokens, and the models read different ones: leave the template out")
    if a.merged != b.merged:
        raise MicroStepError("B − A needs the same positions, and only one of the models merges segments")
    if not np.array_equal(a.token_starts, b.token_starts):
        raise MicroStepError("B − A needs the same segments, and the models cut the text differently: cut it by words")


def rows_at(of: LayerAttention | Rollout, view: AttentionView) -> MapRows:
    """The large map, at the level that is looked at; an error as `LayerAttention.rows_of`."""
    rows: MapRows = of if isinstance(of, Rollout) else of.rows_of(view.head if view.source == "head" else None)
    segmented = view.level == "segments" and not of.reading.merged
    return SegmentRows(rows, of.reading.starts) if segmented else rows


NEEDS: Mapping[str, tuple[bool, bool]] = {  # what each figure shows: the overview, the large map
    "maps": (True, False),
    "statistics": (True, False),
    "map": (False, True),
    "row": (False, True),
}


def compute_attention(
    request: AttentionRequest, view: AttentionView, load: ModelLoader, figure: str, progress: Progress | None = None
) -> AttentionResult:
    """Run the models for one figure.

    Raises:
        MicroStepError: no such layer or head, or as the runs.
    """
    asked, sides = request.readings(), []
    of_all, of_one = NEEDS[figure]

    def part(i: int, begin: float, share: float) -> Progress | None:
        return None if progress is None else lambda done: progress((i + begin + share * done) / len(asked))

    for i, each in enumerate(asked):
        model = load(each.spec).model
        if of_one:
            check_layers(model, [view.layer])
            check_heads(model, [view.head])
        reading = each.run(load, part(i, 0, 0.4))
        rest = part(i, 0.4, 0.6)
        found = OverviewQuery(each, request.pool).run(load, rest, reading) if of_all else None
        question = RolloutQuery(each, view.layer) if view.source == "rollout" else LayerQuery(each, view.layer)
        rows = rows_at(question.run(load, rest, reading), view) if of_one else None
        sides.append(AttentionSide(each.side, reading, found, rows))
    return AttentionResult(request, tuple(sides), view)
