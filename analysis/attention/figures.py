"""The figures of the attention page, by name; and the row of one query as a still strip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.attention.map_figure import map_
from analysis.attention.overview_figures import maps, statistics
from analysis.attention.result import AttentionResult
from analysis.figures.figure import Figure, check_figure, safe, visible
from analysis.figures.static_strip import Page, StillRow, around
from analysis.score_registry import significant


def row(looked: AttentionResult) -> Figure:
    """The text, coloured by what the pinned query attends to; without a pin, by what each key receives."""
    view, reading = looked.view, looked.reading
    weight, query = looked.spread()
    of_rows = looked.of_rows()

    def table() -> pd.DataFrame:
        return pd.DataFrame(
            {
                "position": np.arange(len(reading)),
                "text": pd.Series(reading.words, dtype="str"),
                "start": reading.source[:, 0],
                "end": reading.source[:, 1],
                "segment": reading.segment,
                "row": of_rows,
                "weight": weight[of_rows],
            }
        )

    def make() -> go.Figure:
        page, (start, end) = Page(view.theme), reading.source.T
        shown = weight[of_rows]
        text = looked.request.text.document.text

        def hover(i: int) -> str:
            return f"{safe(reading.words[i])}<br>weight {significant(float(shown[i]))}"

        still = StillRow(start, end, np.sqrt(np.abs(shown)), hover, reading.starts)
        for line in around(text, view.pinned):
            page.add_row(text, line, "", still)
            page.gap()
        sign = ", whichever way" if looked.difference else ""
        return page.figure(f"Root of the weight{sign}, pale to dark: 0 to 1. Grey: comes after the query.")

    unit = "segment" if looked.segmented else reading.unit
    what = f"{looked.title}, {view.what}. "
    if query is None:
        how = f"The mean weight that each {unit} has from the queries that see it. A click pins a query."
        return Figure("row", "What is attended to", what + how, make, table)
    word = visible(looked.names()[query], 30)
    return Figure("row", f"What {word} attends to", f"{what}The pinned {unit} and the weights of its row.", make, table)


FIGURES: dict[str, Callable[[AttentionResult], Figure]] = {
    "maps": maps,
    "statistics": statistics,
    "map": map_,
    "row": row,
}


def draw(name: str, looked: AttentionResult) -> Figure:
    """Draw a figure by name.

    Raises:
        MicroStepError: no figure has this name, or it shows what was not asked for.
    """
    check_figure(name, FIGURES)
    return FIGURES[name](looked)
