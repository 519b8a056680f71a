"""The token strip of two models as a static picture."""

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
    """The cells of the role that is shown; the index is the number of the cell."""
    cells = cell_table(comparison, view.unit)
    return cells if view.role == "all" else cells[cells["role"] == view.role]


def strip(comparison: Comparison, view: View) -> Figure:
    """The rows of both models, one below the other and aligned by character; two continuations one after the other."""
    sides: list[Side] = [("A", comparison.a), ("B", comparison.b)]

    def table() -> pd.DataFrame:
        tables = [
            token_table(side, view.unit).assign(
                model=name, source_start=side.encoded.source_start, source_end=side.encoded.source_end
            )
            for name, side in sides
        ]
        tokens = pd.concat(tables, ignore_index=True)
        return tokens if view.role == "all" else tokens[tokens["role"] == view.role].reset_index(drop=True)

    aligned = comparison.cells is not None
    return Figure(
        "strip",
        "Token by token",
        f"{view.shown.title.capitalize()} at each token, on one scale for both models; "
        + ("the bars show B minus A." if aligned else "each model wrote its own text."),
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
    """One model's tokens, placed in the text that it read or in the document's text."""
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
    """The legend of a strip's colours."""
    score, unit = view.shown, view.unit
    low, high = f"0: {score.low}", f"{significant(score.top(unit))} {score.unit(unit)} or more: {score.high}"
    order = f"{high}, {low}" if score.falls else f"{low}, {high}"
    return f"{score.title}, pale to dark: {order}. Grey: no score."
