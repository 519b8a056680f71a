"""The interlinear strip of two models as a still picture."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.figure import Figure, safe
from analysis.figures.static_strip import LONGEST, Page, StillRow, around, wrap
from analysis.score_registry import significant
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.tables import cell_table, token_table
from analysis.view import View

Side = tuple[str, ScoredText]


def role_cells(comparison: Comparison, view: View) -> pd.DataFrame:
    """The cells of the role that is looked at; their index is the cell's number."""
    cells = cell_table(comparison, view.unit)
    return cells if view.role == "all" else cells[cells["role"] == view.role]


def strip(comparison: Comparison, view: View) -> Figure:
    """Both models' rows under each other, aligned by character; two continuations one after the other."""
    sides: list[Side] = [("A", comparison.a), ("B", comparison.b)]

    def table() -> pd.DataFrame:
        tables = [
            token_table(side, view.unit).assign(
                model=name, source_start=side.encoded.source_start, source_end=side.encoded.source_end
            )
            for name, side in sides
        ]
        found = pd.concat(tables, ignore_index=True)
        return found if view.role == "all" else found[found["role"] == view.role].reset_index(drop=True)

    aligned = comparison.cells is not None
    return Figure(
        "strip",
        "Token by token",
        f"{view.shown.title.capitalize()} at each token, on one scale for both models; "
        + ("the bars show B minus A." if aligned else "each wrote its own text."),
        lambda: _draw(comparison, sides, view),
        table,
    )


def _draw(comparison: Comparison, sides: list[Side], view: View) -> go.Figure:
    page = Page(view.theme)
    if comparison.cells is None:
        for name, scored in sides:
            whole = scored.encoded
            row = still_row(scored, view, own_text=True)
            for line in wrap(whole.text, 0, min(len(whole.text), LONGEST)):
                page.add_row(whole.text, line, name, row)
                page.gap()
        return page.figure(legend(view))
    text = comparison.document.text
    cells = role_cells(comparison, view)
    sign, top = -1 if view.shown.falls else 1, view.shown.top(view.unit) / 2
    height = np.clip(sign * cells[f"{view.score}_difference"] / top, -1, 1)
    bars = list(zip(cells["start"], cells["end"], height, strict=True))
    rows = [(name, still_row(scored, view, own_text=False)) for name, scored in sides]
    for line in around(text, view.pinned):
        for name, row in rows:
            page.add_row(text, line, name, row)
        page.add_bars(text, line, bars)
        page.gap()
    return page.figure(legend(view))


def still_row(scored: ScoredText, view: View, own_text: bool) -> StillRow:
    """One model's tokens; their places are in the text that it read itself, or in the document's."""
    encoded = scored.encoded
    shown = view.shown.values(getattr(scored.scores, view.score), view.unit)
    if view.role != "all":
        shown = np.where(encoded.role == view.role, shown, np.float32(np.nan))
    start, end = (encoded.start, encoded.end) if own_text else (encoded.source_start, encoded.source_end)

    def hover(i: int) -> str:
        token = safe(encoded.text[encoded.start[i] : encoded.end[i]])
        return f"{token}<br>{significant(float(shown[i]))} {view.shown.unit(view.unit)}"

    return StillRow(start, end, view.shown.shade(shown, view.unit), hover)


def legend(view: View) -> str:
    """What the colours of a strip mean."""
    score, unit = view.shown, view.unit
    low, high = f"0: {score.low}", f"{significant(score.top(unit))} {score.unit(unit)} or more: {score.high}"
    order = f"{high}, {low}" if score.falls else f"{low}, {high}"
    return f"{score.title}, pale to dark: {order}. Grey: no score."
