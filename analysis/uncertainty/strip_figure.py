"""The token strip of two models as a static picture, and what it shares with the app's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.figures.figure import Figure, safe
from analysis.figures.static_strip import LONGEST, Page, StillRow, around, wrap
from analysis.score_registry import Score, significant
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.tables import cell_table, token_table
from analysis.view import ScoreView, View
from model.errors import MicroStepError

Side = tuple[str, ScoredText]
CHANGES = 20  # pieces of text that count as the largest changes


@dataclass(frozen=True)
class StripText:
    """What a strip's rows stand on."""

    text: str | None  # None: each row has a text of its own
    source: bool  # positions are those of the document's text, without a chat template

    def spans(self, side: ScoredText) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """[N] characters [start, end) of a model's tokens; -1 where they are no part of the text."""
        encoded = side.encoded
        return (encoded.source_start, encoded.source_end) if self.source else (encoded.start, encoded.end)


def strip_text(comparison: Comparison, view: View) -> StripText:
    """The document's text; with the chat template, what the models read, which may be two texts."""
    if comparison.cells is not None and (not view.with_template or view.lens == "change"):
        return StripText(comparison.document.text, source=True)
    texts = {side.encoded.text for _, side in shown_sides(comparison, view)}
    return StripText(texts.pop() if len(texts) == 1 else None, source=False)


def shown_sides(comparison: Comparison, view: View) -> list[Side]:
    """The models whose tokens are drawn."""
    sides = [("A", comparison.a), ("B", comparison.b)]
    return [side for side in sides if view.lens in (side[0].lower(), "both")]


def role_cells(comparison: Comparison, view: View) -> pd.DataFrame:
    """The cells of the role that is shown; the index is the number of the cell."""
    cells = cell_table(comparison, view.unit)
    return cells if view.role == "all" else cells[cells["role"] == view.role]


def changed_cells(comparison: Comparison, view: View) -> pd.DataFrame:
    """`role_cells`, with the measure of change that is shown.

    Raises:
        MicroStepError: the models read different tokens, so the measure does not exist.
    """
    cells = role_cells(comparison, view)
    if view.change.name not in cells:
        raise MicroStepError(
            f"{view.change.title} needs two models that read the same tokens of one vocabulary; choose the difference"
        )
    return cells


def largest(change: NDArray[np.floating]) -> NDArray[np.int64]:
    """The places of the CHANGES largest values, whatever their sign, the largest first; without 0 and NaN."""
    size = np.nan_to_num(np.abs(change), nan=0, posinf=np.inf)
    order: NDArray[np.int64] = np.argsort(-size, kind="stable")[:CHANGES]
    kept: NDArray[np.int64] = order[size[order] > 0]
    return kept


def strip(comparison: Comparison, view: View) -> Figure:
    """The rows of the models, one below the other and aligned by character, or one row of what changed."""
    if view.lens == "change":
        return _change(comparison, view)
    sides = shown_sides(comparison, view)

    def table() -> pd.DataFrame:
        tables = [
            token_table(side, view.unit).assign(
                model=name, source_start=side.encoded.source_start, source_end=side.encoded.source_end
            )
            for name, side in sides
        ]
        tokens = pd.concat(tables, ignore_index=True)
        return tokens if view.role == "all" else tokens[tokens["role"] == view.role].reset_index(drop=True)

    base = strip_text(comparison, view)
    caption = f"{view.shown.title.capitalize()} at each token"
    if len(sides) == 2:
        caption += ", on one scale for both models"
        caption += "; each model read or wrote its own text" if base.text is None else ""
        caption += "; the bars show B \u2212 A" if base.source else ""
    return Figure("strip", "Token by token", f"{caption}.", lambda: _draw(comparison, sides, base, view), table)


def _draw(comparison: Comparison, sides: list[Side], base: StripText, view: View) -> go.Figure:
    page = Page(view.theme, view.shown.signed)
    rows = [(name, scored, still_row(scored, view, base)) for name, scored in sides]
    if base.text is None:
        for name, scored, row in rows:
            whole = scored.encoded.text
            for line in wrap(whole, 0, min(len(whole), LONGEST)):
                page.add_row(whole, line, name, row)
                page.gap()
        return page.figure(legend(view.shown, view))
    bars = []
    if base.source and len(sides) == 2:
        cells, change = role_cells(comparison, view), view.shown.difference()
        bars = list(zip(cells["start"], cells["end"], change.shade(cells[change.name], view.unit), strict=True))
    for line in around(base.text, view.pinned):
        for name, _, row in rows:
            page.add_row(base.text, line, name, row)
        page.add_bars(base.text, line, bars)
        page.gap()
    return page.figure(legend(view.shown, view))


def _change(comparison: Comparison, view: View) -> Figure:
    """One row of the pieces of text, coloured by what changed."""
    change = view.change
    cells = changed_cells(comparison, view).reset_index(drop=True)
    text = comparison.document.text

    def hover(i: int) -> str:
        return (
            f"{safe(str(cells['text'].iloc[i]))}<br>{significant(cells[change.name].iloc[i])} {change.unit(view.unit)}"
        )

    def draw() -> go.Figure:
        page = Page(view.theme, change.signed)
        start, end = (cells[name].to_numpy(dtype=np.int32) for name in ("start", "end"))
        row = StillRow(start, end, change.shade(cells[change.name].to_numpy(), view.unit), hover)
        for line in around(text, view.pinned):
            page.add_row(text, line, "", row)
            page.gap()
        return page.figure(legend(change, view))

    title = change.title[0].upper() + change.title[1:]
    return Figure(
        "strip", "What changed", f"{title} in each piece of text that both models scored.", draw, lambda: cells
    )


def still_row(scored: ScoredText, view: ScoreView, base: StripText) -> StillRow:
    """One model's tokens, placed in the text of a strip."""
    encoded = scored.encoded
    shown = view.shown.values(getattr(scored.scores, view.score), view.unit)
    if view.role != "all":
        shown = np.where(encoded.role == view.role, shown, np.float32(np.nan))

    def hover(i: int) -> str:
        token = safe(encoded.text[encoded.start[i] : encoded.end[i]])
        return f"{token}<br>{significant(float(shown[i]))} {view.shown.unit(view.unit)}"

    return StillRow(*base.spans(scored), view.shown.shade(shown, view.unit), hover)


def legend(score: Score, view: ScoreView) -> str:
    """The legend of a strip's colours."""
    low, high = score.ends(view.unit)
    scale = "blue to orange" if score.signed else "pale to dark"
    return f"{score.title}, {scale}: {low}; {high}. Grey: no score."
