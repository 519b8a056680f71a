"""From a comparison to the interlinear strip: which tokens, which colours, what the hover card says."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.score_registry import SCORES
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.tables import cell_table
from analysis.view import View
from app.token_strip import BarRow, Detail, Legend, Scale, Strip, TokenRow, TopK


def comparison_strip(comparison: Comparison, view: View) -> Strip:
    """A, B and their difference; of two continuations, each model's own text."""
    aligned = comparison.cells is not None
    rows: list[TokenRow | BarRow] = [
        _row("A", comparison.a, view, aligned),
        _row("B", comparison.b, view, aligned),
    ]
    if aligned:
        rows.append(_difference(comparison, view))
    return Strip(comparison.document.text if aligned else "", tuple(rows), _legend(view, aligned), aligned)


def _row(key: str, side: ScoredText, view: View, aligned: bool) -> TokenRow:
    encoded, scores = side.encoded, side.scores
    start, end = (encoded.source_start, encoded.source_end) if aligned else (encoded.start, encoded.end)
    kept = start >= 0
    shown = view.shown.values(getattr(scores, view.score), view.unit)
    details = tuple(
        Detail(
            f"{score.title}, {view.unit}" if score.information else score.title,
            score.values(getattr(scores, score.name), view.unit)[kept],
        )
        for score in SCORES.values()
    )
    rank = np.where(scores.missing, np.nan, scores.rank).astype(np.float32)
    display = encoded.display
    return TokenRow(
        key=key,
        title=side.facts.name,
        start=start[kept],
        end=end[kept],
        value=view.shown.shade(shown, view.unit)[kept],
        scale="diverging" if view.shown.signed else "sequential",
        details=(*details, Detail("rank", rank[kept], digits=0)),
        topk=_topk(side, kept),
        display=tuple(display[i] for i in np.flatnonzero(kept)),
        muted=None if aligned else ~side.own,
        text=None if aligned else encoded.text,
    )


def _topk(side: ScoredText, kept: NDArray[np.bool_]) -> TopK:
    ids = np.array(sorted(side.strings), dtype=np.int64)
    places = np.searchsorted(ids, np.maximum(side.scores.topk_ids[kept], ids[0] if len(ids) else 0))
    strings = tuple(side.strings[i] for i in ids.tolist()) or ("",)
    return TopK(places.astype(np.int32), side.scores.topk_probability[kept], strings)


def _difference(comparison: Comparison, view: View) -> BarRow:
    cells = cell_table(comparison, view.unit)
    change = view.shown.difference()
    return BarRow(
        key="B−A",
        title="difference",
        start=cells["start"].to_numpy(dtype=np.int32),
        end=cells["end"].to_numpy(dtype=np.int32),
        value=change.shade(cells[change.name].to_numpy(), view.unit),
        up=change.low if change.falls else change.high,
        down=change.high if change.falls else change.low,
    )


def _legend(view: View, aligned: bool) -> Legend:
    rest = "bars: B minus A" if aligned else "the prompt is faint"
    scale: Scale = "diverging" if view.shown.signed else "sequential"
    return Legend(*view.shown.ends(view.unit), f"{view.shown.title}; {rest}", scale)
