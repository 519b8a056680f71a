"""The interlinear strip as a still picture, for export: the app has a component that scrolls and answers.

A heat map of characters, one row a model and line of text, the text on it, and the ends of tokens as gaps.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.compare import Comparison, cell_table
from analysis.figures.base import Drawn, View, safe
from analysis.figures.theme import BLUE, CARD, INK, ORANGE, SOFT, colorscale, styled
from analysis.scoring import ScoredText, token_table
from analysis.units import significant

WIDTH = 92  # columns of a line
LONGEST = 4000  # characters in the picture; more would not be legible
ROW_PIXELS = 22
INVERSE = {"light": 0.8, "dark": 0.6}  # shades on which ink of the ground's colour reads better
Side = tuple[str, ScoredText]


def strip(comparison: Comparison, view: View) -> Drawn:
    """Both models' rows under each other, aligned by character; two continuations one after the other."""
    sides: list[Side] = [("A", comparison.a), ("B", comparison.b)]
    tables = [
        token_table(side, view.unit).assign(
            model=name, source_start=side.encoded.source_start, source_end=side.encoded.source_end
        )
        for name, side in sides
    ]
    aligned = comparison.cells is not None
    return Drawn(
        "strip",
        "Token by token",
        f"{view.shown.title.capitalize()} at each token, on one scale for both models; "
        + ("the bars show B minus A." if aligned else "each wrote its own text."),
        lambda: _draw(comparison, sides, view),
        pd.concat(tables, ignore_index=True),
    )


def _draw(comparison: Comparison, sides: list[Side], view: View) -> go.Figure:
    page = _Page(view)
    if comparison.cells is None:
        for side in sides:
            whole = side[1].encoded
            for line in _wrap(whole.text, 0, min(len(whole.text), LONGEST)):
                page.add_row(whole.text, line, side, whole.start, whole.end)
                page.gap()
        return page.figure()
    text = comparison.document.text
    begin = max(0, min((view.pinned or 0) - LONGEST // 2, len(text) - LONGEST))
    cells = cell_table(comparison, view.unit)
    for line in _wrap(text, begin, min(len(text), begin + LONGEST)):
        for side in sides:
            page.add_row(text, line, side, side[1].encoded.source_start, side[1].encoded.source_end)
        page.add_difference(text, line, cells)
        page.gap()
    return page.figure()


def _wrap(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """Characters [start, stop) of each line: up to WIDTH columns, broken after a space where there is one."""
    lines = []
    while begin < end:
        column, stop, space = 0, begin, -1
        while stop < end and column + _columns(text[stop]) <= WIDTH:
            column += _columns(text[stop])
            stop += 1
            if text[stop - 1] == "\n":
                break
            if text[stop - 1] == " ":
                space = stop
        if stop < end and text[stop - 1] != "\n" and space > begin:
            stop = space
        stop = max(stop, begin + 1)
        lines.append((begin, stop))
        begin = stop
    return lines


def _columns(character: str) -> int:
    """Columns that a character takes in a fixed-width face."""
    if unicodedata.combining(character) or unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


@dataclass(frozen=True)
class _Box:
    x: float
    width: float
    top: float
    bottom: float


class _Page:
    """Rows are added from the top; `figure` then draws them all in a handful of traces."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.y = 0.0
        self.cells: list[_Box] = []
        self.shades: list[float] = []
        self.hover: list[str] = []
        self.bars: dict[str, list[_Box]] = {"more": [], "less": []}
        self.glyphs: dict[str, list[tuple[float, float, str]]] = {"ink": [], "inverse": [], "soft": []}
        self.cuts: list[tuple[float, float]] = []  # (x, y) where a token starts

    def add_row(
        self, text: str, line: tuple[int, int], side: Side, start: NDArray[np.int32], end: NDArray[np.int32]
    ) -> None:
        """One model's row of a line: a cell a token, its characters on it."""
        (name, scored), (left, right), view = side, line, self.view
        shown = view.shown.values(getattr(scored.scores, view.score), view.unit)
        shade = view.shown.shade(shown, view.unit)
        column = _places(text, line)
        tone = ["soft"] * (right - left)  # what no score colours: template, missing
        for i in np.flatnonzero((start < right) & (end > left) & (start >= 0)).tolist():
            a, b = max(int(start[i]), left) - left, min(int(end[i]), right) - left
            if start[i] >= left:
                self.cuts.append((column[a], self.y))
            if np.isnan(shade[i]):
                continue
            self.cells.append(_Box(column[a], column[b] - column[a], self.y - 0.46, self.y + 0.46))
            self.shades.append(float(shade[i]))
            token = safe(scored.encoded.text[scored.encoded.start[i] : scored.encoded.end[i]])
            self.hover.append(f"{name} {token}<br>{significant(float(shown[i]))} {view.shown.unit(view.unit)}")
            tone[a:b] = ["inverse" if shade[i] > INVERSE[view.theme] else "ink"] * (b - a)
        self.glyphs["soft"].append((-2.0, self.y, name))
        for i, character in enumerate(text[left:right]):
            middle = (column[i] + column[i + 1]) / 2
            self.glyphs[tone[i]].append((middle, self.y, safe(character)))
        self.y += 1.0

    def add_difference(self, text: str, line: tuple[int, int], cells: pd.DataFrame) -> None:
        """Thin bars, B minus A: up and orange where B is less sure."""
        (left, right), column = line, _places(text, line)
        sign = -1 if self.view.shown.falls else 1
        top = self.view.shown.top(self.view.unit) / 2
        inside = cells[(cells["start"] < right) & (cells["end"] > left)]
        for a, b, gap in zip(inside["start"], inside["end"], inside[f"{self.view.score}_difference"], strict=True):
            x, x_end = column[max(a, left) - left], column[min(b, right) - left]
            height = 0.3 * float(np.clip(sign * gap / top, -1, 1))
            box = _Box(x, x_end - x, self.y - max(height, 0) - 0.2, self.y - min(height, 0) - 0.2)
            self.bars["more" if height > 0 else "less"].append(box)
        self.y += 0.6

    def gap(self) -> None:
        """Space before the next line."""
        self.y += 0.6

    def figure(self) -> go.Figure:
        """Draw what was added."""
        theme = self.view.theme
        scale = {"color": self.shades, "colorscale": colorscale(theme), "cmin": 0, "cmax": 1, "line": {"width": 0}}
        figure = go.Figure()
        figure.add_trace(_boxes(self.cells, scale, customdata=self.hover, hovertemplate="%{customdata}<extra></extra>"))
        for which, color in (("more", ORANGE[theme]), ("less", BLUE[theme])):
            plain = {"color": color, "line": {"width": 0}}
            figure.add_trace(_boxes(self.bars[which], plain, hoverinfo="skip"))
        x = [value for place, _ in self.cuts for value in (place, place, None)]
        y = [value for _, row in self.cuts for value in (row - 0.46, row + 0.46, None)]
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line={"color": CARD[theme], "width": 2}, hoverinfo="skip"))
        for tone, color in (("ink", INK[theme]), ("inverse", CARD[theme]), ("soft", SOFT[theme])):
            glyphs = self.glyphs[tone]
            figure.add_trace(
                go.Scatter(
                    x=[place for place, _, _ in glyphs],
                    y=[row for _, row, _ in glyphs],
                    text=[character for _, _, character in glyphs],
                    mode="text",
                    textfont={"family": "'DejaVu Sans Mono', ui-monospace, monospace", "size": 13, "color": color},
                    hoverinfo="skip",
                )
            )
        figure = styled(figure, theme, round(60 + ROW_PIXELS * (self.y + 1)))
        figure.update_xaxes(range=[-3, WIDTH + 1], visible=False)
        figure.update_yaxes(range=[self.y, -1], visible=False)
        figure.update_layout(
            width=round(9 * (WIDTH + 4)), margin={"l": 4, "r": 4, "t": 8, "b": 40}, showlegend=False, bargap=0
        )
        figure.add_annotation(
            text=self._legend(), x=0, y=0, xref="paper", yref="paper", yshift=-30, showarrow=False, xanchor="left"
        )
        return figure

    def _legend(self) -> str:
        score, unit = self.view.shown, self.view.unit
        low, high = f"0: {score.low}", f"{significant(score.top(unit))} {score.unit(unit)} or more: {score.high}"
        order = f"{high}, {low}" if score.falls else f"{low}, {high}"
        return f"{score.title}, pale to dark: {order}. Grey: no score."


def _places(text: str, line: tuple[int, int]) -> list[float]:
    """Left edge, in columns, of each character of a line, and the end of the last."""
    widths = [_columns(character) for character in text[line[0] : line[1]]]
    return [0.0, *np.cumsum(widths).astype(float).tolist()]


def _boxes(boxes: list[_Box], marker: Mapping[str, object], **hover: object) -> go.Bar:
    return go.Bar(
        x=[box.x + box.width / 2 for box in boxes],
        width=[box.width for box in boxes],
        base=[box.top for box in boxes],
        y=[box.bottom - box.top for box in boxes],
        marker=marker,
        **hover,
    )
