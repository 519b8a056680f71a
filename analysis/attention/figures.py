"""The figures of attention, by name, and the row of one query as a static strip."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analysis.attention.map_figure import attention_map
from analysis.attention.overview_figures import maps, statistics
from analysis.attention.result import AttentionResult
from analysis.attention.tables import row_table
from analysis.figures.figure import Figure, FigureSet, safe, visible
from analysis.figures.static_strip import Page, StillRow, around
from analysis.score_registry import significant


def row(result: AttentionResult) -> Figure:
    """The text, coloured by what the pinned query attends to; without a pin, by what each key receives on average."""
    view, reading = result.view, result.reading
    weight, query = result.spread()
    of_rows = result.of_rows()

    def make() -> go.Figure:
        page, (start, end) = Page(view.theme), reading.source.T
        shown = weight[of_rows]
        text = result.request.text.document.text

        def hover(i: int) -> str:
            return f"{safe(reading.words[i])}<br>weight {significant(float(shown[i]))}"

        still = StillRow(start, end, np.sqrt(np.abs(shown)), hover, reading.starts)
        for line in around(text, view.pinned):
            page.add_row(text, line, "", still)
            page.gap()
        sign = " of the difference" if result.difference else ""
        return page.figure(f"Square root of the weight{sign}, pale to dark: 0 to 1. Grey: after the query.")

    unit = "segment" if result.segmented else reading.unit
    what = f"{result.title}, {view.what}. "
    if query is None:
        caption = f"{what}The mean weight that each {unit} receives from the queries that see it. A click pins a query."
        return Figure("row", "What is attended to", caption, make, lambda: row_table(result, weight))
    word = visible(result.names()[query], 30)
    return Figure(
        "row",
        f"What {word} attends to",
        f"{what}The pinned {unit} and the weights of its row.",
        make,
        lambda: row_table(result, weight),
    )


FIGURES = FigureSet(
    {
        "maps": maps,
        "statistics": statistics,
        "map": attention_map,
        "row": row,
    }
)
draw = FIGURES.draw
