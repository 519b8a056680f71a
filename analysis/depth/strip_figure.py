"""The text, coloured by the layer at which each token is decided; and what the app's strip of it shows, too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.depth.options import NO_SEGMENTS, DepthView
from analysis.depth.result import Depth, LayeredText
from analysis.depth.scores import LAYER_SCORES
from analysis.figures.figure import Figure, safe
from analysis.figures.static_strip import Page, StillRow, around
from analysis.score_registry import Score, significant
from analysis.segmentation.single import scored_inputs
from analysis.segmentation.strategy import Segmenter, Strategy
from model.errors import MicroStepError
from model.segmentation.features import FeatureOptions

DECIDED = (
    "A token is decided at the first layer from which the likeliest token stays the one that is likeliest in the end."
)
SCORED_AT_THE_END = ("entropy", "confidence", "surprisal", "rank")  # those that the final prediction does not fix


@dataclass(frozen=True)
class DecisionScale:
    """The colours of layers of decision: from 0 to the number of layers, or relative to it where A and B differ."""

    top: int  # L; 1: relative depth

    @classmethod
    def of(cls, depth: Depth) -> DecisionScale:
        return cls(depth.sides[0].count if depth.same_layers else 1)

    def values(self, side: LayeredText) -> NDArray[np.float64]:
        """[N] the layer at which each token of a model is decided, or its share of the depth; NaN where missing."""
        return side.decided if self.top > 1 else side.decided / side.count

    def changes(self, depth: Depth) -> NDArray[np.float64]:
        """[C] how much later B decides each piece of text than A; below 0 where earlier."""
        a, b = depth.decided_in_cells()
        return b - a if self.top > 1 else b / depth.sides[-1].count - a / depth.sides[0].count

    def shade(self, values: NDArray[np.floating], change: bool = False) -> NDArray[np.float32]:
        """0 to 1 of the colours; of changes −1 to 1, on half of the range to either side."""
        shares = np.clip(values / self.top * (2 if change else 1), -1 if change else 0, 1)
        return np.asarray(shares, dtype=np.float32)

    def ends(self, change: bool = False) -> tuple[str, str]:
        """What stands at both ends of the legend."""
        if change:
            half = f"{self.top / 2:g}"
            return (
                f"\u2212{half} {self.unit} or less, B decides earlier",
                f"{half} {self.unit} or more, B decides later",
            )
        return "0, decided by the embeddings", f"{self.top}, decided by the last layer only"

    @property
    def unit(self) -> str:
        return "layers" if self.top > 1 else "of the depth"


def beside(view: DepthView) -> Score:
    """The final prediction's score that is shown beside the layers of decision: the view's own, or else the entropy."""
    return view.shown if view.score in SCORED_AT_THE_END else LAYER_SCORES["entropy"]


def segmenter_of(segments: str) -> Segmenter | None:
    """What a view's `segments` stands for; None for none.

    Raises:
        MicroStepError: there is no such strategy, or it needs more than the scores.
    """
    if segments == NO_SEGMENTS:
        return None
    strategy = Strategy.parse(segments)
    if not strategy.rule.needs <= {"scores", "text"}:
        raise MicroStepError(f"{strategy.name} needs more than the scores; choose another one, such as entropy")
    return Segmenter(strategy)


def segment_starts(side: LayeredText, view: DepthView) -> NDArray[np.bool_] | None:
    """[N] where the view's strategy starts segments under a model; None without one; errors as `segmenter_of`."""
    segmenter = segmenter_of(view.segments)
    return None if segmenter is None else segmenter.segment(scored_inputs(side.scored, FeatureOptions())[0]).starts


def strip(depth: Depth, view: DepthView) -> Figure:
    """The rows of the models, one below the other and aligned by character, or one row of what changed."""
    scale, change = DecisionScale.of(depth), view.lens == "change"
    sides = depth.seen(view.lens)
    if change:
        depth.check_cells()
    starts = {key: segment_starts(side, view) for key, side in sides}

    def make() -> go.Figure:
        page = Page(view.theme, change)
        text = depth.document.text
        rows = [(key, _row(side, scale, starts[key])) for key, side in sides]
        rows = [("", _changed_row(depth, scale))] if change else rows
        for line in around(text, view.pinned):
            for key, row in rows:
                page.add_row(text, line, key, row)
            page.gap()
        return page.figure(f"{'; '.join(scale.ends(change))}. Grey: no score.")

    def table() -> pd.DataFrame:
        if change:
            return _change_table(depth, scale)
        return pd.concat([_table(key, side, view, starts[key]) for key, side in sides], ignore_index=True)

    what = (
        "How much later B decides each piece of text than A" if change else "The layer at which each token is decided"
    )
    relative = "" if depth.same_layers else ", as a share of the model's layers"
    segments = "" if change or view.segments == NO_SEGMENTS else f" Gaps: segments of {view.segments}."
    return Figure("strip", "Where each token is decided", f"{what}{relative}. {DECIDED}{segments}", make, table)


def _row(side: LayeredText, scale: DecisionScale, starts: NDArray[np.bool_] | None) -> StillRow:
    encoded, decided = side.scored.encoded, side.decided

    def hover(i: int) -> str:
        return f"{safe(encoded.text[encoded.start[i] : encoded.end[i]])}<br>layer {significant(decided[i])}"

    return StillRow(encoded.source_start, encoded.source_end, scale.shade(scale.values(side)), hover, starts)


def _changed_row(depth: Depth, scale: DecisionScale) -> StillRow:
    cells, changes = depth.check_cells(), scale.changes(depth)

    def hover(i: int) -> str:
        return f"{safe(depth.document.text[cells.start[i] : cells.end[i]])}<br>{significant(changes[i])} {scale.unit}"

    return StillRow(cells.start, cells.end, scale.shade(changes, change=True), hover)


def _table(key: str, side: LayeredText, view: DepthView, starts: NDArray[np.bool_] | None) -> pd.DataFrame:
    encoded, score = side.scored.encoded, beside(view)
    columns: dict[str, object] = {
        "model": key, "position": np.arange(len(encoded)), "token": encoded.display, "start": encoded.source_start,
        "end": encoded.source_end, "decided": side.decided, "layers": side.count,
        f"final_{score.name}": side.values(score.name, view.unit)[-1].astype(np.float64),
        "unit": score.unit(view.unit),
    }  # fmt: skip
    return pd.DataFrame(columns if starts is None else columns | {"starts_segment": starts})


def _change_table(depth: Depth, scale: DecisionScale) -> pd.DataFrame:
    cells = depth.check_cells()
    a, b = depth.decided_in_cells()
    spans: Iterable[tuple[int, int]] = zip(cells.start.tolist(), cells.end.tolist(), strict=True)
    return pd.DataFrame(
        {
            "start": cells.start, "end": cells.end, "text": [depth.document.text[s:e] for s, e in spans],
            "decided_a": a, "decided_b": b, "difference": scale.changes(depth), "unit": scale.unit,
        }
    )  # fmt: skip
