"""Draws a table as a picture for export; the app shows tables that can be sorted and searched."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.figure import safe
from analysis.figures.theme import CARD, INK, LINE, styled
from analysis.score_registry import significant
from analysis.view import Theme

ROW, WIDE = 26, 8  # pixels: height of a table line, width of a character
LONGEST_CELL = 60


def table_figure(table: pd.DataFrame, theme: Theme) -> go.Figure:
    """All rows of a table; long cells are cut."""
    ground, line = CARD[theme], LINE[theme]
    look = {"fill": {"color": ground}, "line": {"color": line}, "align": "left", "height": ROW}
    ink = {"color": INK[theme]}
    figure = go.Figure(
        go.Table(
            header={"values": [f"<b>{safe(str(name), LONGEST_CELL)}</b>" for name in table], "font": ink, **look},
            cells={"values": [[_cell(value) for value in table[name]] for name in table], "font": ink, **look},
        )
    )
    width = max(900, 110 * len(table.columns))
    fits = max(1, round((width / max(1, len(table.columns)) - 16) / WIDE))  # characters in a line of a cell
    lines = [max(-(-len(_cell(value)) // fits) for value in row) for row in table.itertuples(index=False)]
    figure = styled(figure, theme, 40 + ROW * (2 + sum(max(1, count) for count in lines)))
    figure.update_layout(margin={"l": 12, "r": 12, "t": 12, "b": 12}, width=width)
    return figure


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "" if value != value else significant(value)
    if isinstance(value, bool):
        return "yes" if value else ""
    return safe(str(value), LONGEST_CELL).replace("·", " ")
