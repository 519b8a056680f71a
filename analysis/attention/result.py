"""The attention of one model, or the difference of two, under a view: layer, head, level and window."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from analysis.attention.layer import LayerAttention
from analysis.attention.maps import MapCells, MapRows, MapWindow, SegmentRows, cells, received, row
from analysis.attention.overview import AttentionOpening, HeadStatistics, Overview
from analysis.attention.pooling import POOLS, Pool
from analysis.attention.positions import AttentionPositions
from analysis.attention.request import LayerQuery, OpeningQuery, OverviewQuery, PositionsQuery, RolloutQuery
from analysis.attention.rollout import Rollout
from analysis.attention.statistics import statistic
from analysis.query import Ask, Query
from analysis.segmentation.segmented_text import MemoCache
from analysis.segmentation.strategy import Segmenter
from analysis.view import Theme
from model.arguments import check_choice
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
    "rollout": "attention rollout through all layers up to this one: R = (A + I) / 2 R, averaged over heads",
}
LEVELS: dict[str, str] = {
    "tokens": "a row and a column for each position",
    "segments": "summed over a segment's keys, averaged over its queries",
}
MAPS = "maps"  # the overview shows maps in place of a statistic
CELLS = 320  # per side of the large map at most, which keeps it below 2 MB for the browser


@dataclass(frozen=True)
class AttentionView:
    """How attention is shown.

    Raises:
        MicroStepError: a choice does not exist.
    """

    shown: str = MAPS  # "maps", or a statistic
    layer: int = 0
    head: int = 0
    source: Source = "head"
    level: Level = "tokens"
    queries: tuple[int, int] | None = None  # [from, to) of the map; None: all
    keys: tuple[int, int] | None = None
    theme: Theme = "light"
    pinned: int | None = None  # a character of the text, whose position is the pinned query

    def __post_init__(self) -> None:
        if self.shown != MAPS:
            statistic(self.shown)
        check_choice("source", self.source, SOURCES)
        check_choice("level", self.level, LEVELS)

    @property
    def what(self) -> str:
        """The large map, in words."""
        return {
            "head": f"layer {self.layer}, head {self.head}",
            "mean": f"layer {self.layer}, mean of its heads",
            "rollout": f"rollout through layer {self.layer}",
        }[self.source]


@dataclass(frozen=True)
class AttentionRequest:
    """One model on a text, or two whose difference is shown."""

    models: tuple[tuple[str, ModelSpec], ...]  # ("A", spec); with ("B", spec) the difference B - A
    text: TextInput
    segmenter: Segmenter = field(default_factory=Segmenter)
    pool: Pool = "max"

    def __post_init__(self) -> None:
        if not 1 <= len(self.models) <= 2:
            raise MicroStepError(f"attention needs one model, or two for a difference; got {len(self.models)}")
        check_choice("pooling", self.pool, POOLS)

    def readings(self) -> list[PositionsQuery]:
        """A query for each model. For B - A, both use the segments that A's scores give."""
        first = None if self.segmenter.only_text else self.models[0][1]
        return [
            PositionsQuery(key, spec, self.text, self.segmenter, first if place else None)
            for place, (key, spec) in enumerate(self.models)
        ]


@dataclass(frozen=True, eq=False, repr=False)
class AttentionSide(ShortRepr):
    """One model's part; a part that was not computed is None."""

    key: str  # A, B
    reading: AttentionPositions
    overview: HeadStatistics | None = None  # an Overview, or as far as it was stored
    rows: MapRows | None = None  # of the large map


@dataclass(frozen=True, eq=False, repr=False)
class AttentionResult(ShortRepr):
    """Attention of one model, or of two over the same positions."""

    request: AttentionRequest
    sides: tuple[AttentionSide, ...]
    view: AttentionView
    most: int = CELLS  # cells per side of the large map
    kept: MemoCache = field(default_factory=MemoCache)

    def __post_init__(self) -> None:
        if len(self.sides) == 2:
            check_comparable(self.sides[0].reading, self.sides[1].reading)

    @property
    def difference(self) -> bool:
        return len(self.sides) == 2

    @property
    def reading(self) -> AttentionPositions:
        """The positions, the same for both."""
        return self.sides[-1].reading

    @property
    def title(self) -> str:
        return "B − A" if self.difference else f"{self.sides[0].key} {self.sides[0].reading.facts.name}"

    def of(self, values: Callable[[AttentionSide], NDArray[np.floating]]) -> NDArray[np.float64]:
        """An array of one model, or the difference B - A."""
        arrays = [np.asarray(values(side), dtype=np.float64) for side in self.sides]
        if not self.difference:
            return arrays[0]
        if arrays[0].shape != arrays[1].shape:
            raise MicroStepError("A and B have different numbers of layers or heads: choose one of them")
        return arrays[1] - arrays[0]

    def maps(self) -> NDArray[np.float64]:
        """[L, H, C, C] the small maps."""
        return self.of(lambda side: computed(_with_maps(side)).maps)

    @property
    def has_maps(self) -> bool:
        """Whether the small maps are there, which are not stored."""
        return all(_with_maps(side) is not None for side in self.sides)

    @property
    def opens(self) -> bool:
        """Whether the view shows what is stored to open the page: the strongest head, and no pin."""
        view, first = self.view, self.sides[0].overview
        return (
            isinstance(first, AttentionOpening)
            and (view.source, view.layer, view.head) == ("head", *first.strongest())
            and not self.segmented
            and self.query is None
        )

    def statistic(self, name: str) -> NDArray[np.float64]:
        """[L, H] a statistic."""
        return self.of(lambda side: computed(side.overview).of(name))

    @property
    def layers(self) -> tuple[int, ...]:
        """The L layers of the overview."""
        return computed(self.sides[-1].overview).layers

    @property
    def size(self) -> int:
        """The number of queries, and of keys, of the large map."""
        return computed(self.sides[-1].rows).size

    @property
    def window(self) -> MapWindow:
        return MapWindow.of(self.size, self.view.queries, self.view.keys)

    def cells(self) -> MapCells:
        drawn = [self._cells(side) for side in self.sides]
        if not self.difference:
            return drawn[0]
        return dataclasses.replace(drawn[1], weight=drawn[1].weight - drawn[0].weight)

    @property
    def segmented(self) -> bool:
        """Whether a row of the large map is a segment of several positions."""
        return self.view.level == "segments" and not self.reading.merged

    def _cells(self, side: AttentionSide) -> MapCells:
        key = self.window, self.most, self.request.pool
        return self.kept.get(("cells", side, *key), lambda: cells(computed(side.rows), *key))

    @property
    def query(self) -> int | None:
        """The row of the large map that is pinned."""
        at = self.reading.at(self.view.pinned)
        return at if at is None or not self.segmented else int(self.reading.segment[at])

    def spread(self) -> tuple[NDArray[np.float64], int | None]:
        """[size] weights of the pinned query, or without one the mean weight of each key; and the pinned query."""
        query, first = self.query, self.sides[0].overview
        if self.opens and isinstance(first, AttentionOpening):
            return first.received.astype(np.float64), None
        if query is None:
            return self.of(self._received), None
        return self.of(lambda side: row(computed(side.rows), query)), query

    def _received(self, side: AttentionSide) -> NDArray[np.floating]:
        return self.kept.get(("received", side), lambda: received(computed(side.rows)))

    def names(self) -> tuple[str, ...]:
        """[size] the text of each row of the large map."""
        if not self.segmented:
            return self.reading.words
        first = np.flatnonzero(self.reading.starts)
        words, after = self.reading.words, [*first[1:].tolist(), len(self.reading)]
        return tuple("".join(words[a:b]) for a, b in zip(first.tolist(), after, strict=True))

    def boundaries(self) -> NDArray[np.int64]:
        """Rows of the large map that start a segment; none if each row is a segment."""
        if self.segmented or self.reading.merged:
            return np.empty(0, dtype=np.int64)
        return np.flatnonzero(self.reading.starts)

    def of_rows(self) -> NDArray[np.int64]:
        """[P] the row of the large map for each position."""
        return self.reading.segment if self.segmented else np.arange(len(self.reading))


def computed(value: Given | None) -> Given:
    """A part of a result."""
    if value is None:
        raise MicroStepError("this figure's part was not computed; call AttentionMaps.result(view, NAME)")
    return value


def _with_maps(side: AttentionSide) -> Overview | None:
    return side.overview if isinstance(side.overview, Overview) else None


def check_comparable(a: AttentionPositions, b: AttentionPositions) -> None:
    """Raise MicroStepError if two models do not have the same tokens in the same positions."""
    if a.facts.tokenizer_hash != b.facts.tokenizer_hash or a.lead != b.lead:
        raise MicroStepError(
            "B − A needs two models with the same tokenizer, which split the text into the same tokens"
        )
    if not np.array_equal(a.encoded.ids, b.encoded.ids):
        raise MicroStepError(
            "B − A needs the same tokens, and the models read different ones: turn off the chat template"
        )
    if a.merged != b.merged:
        raise MicroStepError("B − A needs the same positions, and only one of the models merges segments")
    if not np.array_equal(a.token_starts, b.token_starts):
        raise MicroStepError(
            "B − A needs the same segments, and the models segment the text differently: use the strategy word"
        )


def rows_at(of: LayerAttention | Rollout, view: AttentionView) -> MapRows:
    """The large map at the view's level; raises as `LayerAttention.rows_of`."""
    rows: MapRows = of if isinstance(of, Rollout) else of.rows_of(view.head if view.source == "head" else None)
    segmented = view.level == "segments" and not of.reading.merged
    return SegmentRows(rows, of.reading.starts) if segmented else rows


def read_sides(
    request: AttentionRequest, ask: Ask, overviews: bool = True, layers: tuple[int, ...] | None = None
) -> tuple[AttentionSide, ...] | None:
    """How each model reads the text, and the overview of its heads; None while an answer is missing.

    Args:
        request: one model, or two.
        ask: gives the answers.
        overviews: whether to ask for overviews.
        layers: those of the overviews; None: all.

    Raises:
        MicroStepError: two models whose positions are not the same.
    """
    queries, sides = request.readings(), []
    readings = [reading for query in queries for reading in ask([query]) if reading is not None]
    if len(readings) < len(queries):
        return None
    if len(readings) == 2:
        check_comparable(*readings)
    for query, reading in zip(queries, readings, strict=True):
        side = AttentionSide(query.side, reading)
        if overviews:
            question = OverviewQuery(query, request.pool, layers)
            (overview,) = ask([question], _of_reading(question, reading))
            if overview is None:
                return None
            # the reading that the overview is of: an answer that was kept may be of an earlier one of the same text
            side = AttentionSide(query.side, overview.reading, overview)
        sides.append(side)
    return tuple(sides)


def stored_sides(
    request: AttentionRequest, look: Callable[[OpeningQuery], AttentionOpening | None]
) -> tuple[AttentionSide, ...] | None:
    """What the page opens with if `look` finds it stored, which is one model's part."""
    if len(request.models) > 1:
        return None
    (query,) = request.readings()
    found = look(OpeningQuery(query))
    return None if found is None else (AttentionSide(query.side, found.reading, found),)


def with_rows(result: AttentionResult, ask: Ask) -> AttentionResult:
    """The result with its large map; where an answer is missing, the side has none."""
    view, sides = result.view, []
    for query, side in zip(result.request.readings(), result.sides, strict=True):
        question = RolloutQuery(query, view.layer) if view.source == "rollout" else LayerQuery(query, view.layer)
        (layer,) = ask([cast("Query[Rollout | LayerAttention]", question)], _of_reading(question, side.reading))
        if layer is not None:
            key = "side", layer, side.overview, view.source, view.head, view.level
            side = result.kept.get(key, partial(_with_map, side, layer, view))
        sides.append(side)
    return dataclasses.replace(result, sides=tuple(sides))


def _of_reading(query: OverviewQuery | LayerQuery | RolloutQuery, reading: AttentionPositions) -> Callable[..., Any]:
    """A run of the query on positions that are known."""
    return lambda load, progress: query.run(load, progress, reading)


def _with_map(side: AttentionSide, layer: Rollout | LayerAttention, view: AttentionView) -> AttentionSide:
    return dataclasses.replace(side, rows=rows_at(layer, view))
