"""Draws the token strip as a static picture for export; the app has an interactive component instead.

The picture is a heat map of characters with the text on it; gaps mark the ends of tokens or segments. A character is
a grapheme cluster: a letter with its marks, or an emoji of several code points, is drawn once, in one place.
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
import regex
from numpy.typing import NDArray

from analysis.figures.figure import visible
from analysis.figures.theme import BLUE, CARD, ON_COLOUR, ORANGE, SOFT, colorscale, styled
from analysis.view import Theme

WIDTH = 92  # columns of a line
LONGEST = 4000  # characters in the picture; more would not be readable
ROW_PIXELS = 22
_CLUSTER = regex.compile(r"\X")
_EMOJI = regex.compile(r"\p{Emoji_Presentation}|\ufe0f")


@dataclass(frozen=True)
class StillRow:
    """N tokens and their colours."""

    start: NDArray[np.int32]  # [N] characters [start, end); -1 is left out
    end: NDArray[np.int32]  # [N]
    shade: NDArray[np.floating]  # [N] 0 to 1, or -1 to 1 on a signed page; NaN has no colour
    hover: Callable[[int], str]  # the hover text of a token, as HTML
    begins: NDArray[np.bool_] | None = None  # [N] whether a gap stands before a token; before all if None


def around(text: str, pinned: int | None) -> list[tuple[int, int]]:
    """The lines of a text, or of LONGEST characters around the pinned one."""
    begin = max(0, min((pinned or 0) - LONGEST // 2, len(text) - LONGEST))
    return wrap(text, begin, min(len(text), begin + LONGEST))


def wrap(text: str, begin: int, end: int) -> list[tuple[int, int]]:
    """Characters [start, stop) of each line: up to WIDTH columns, broken after a space if there is one."""
    lines = []
    first, column, fold = begin, 0, begin  # start of the line, columns used, where the line may be broken
    for each in clusters(text, begin, end):
        if column + each.columns > WIDTH and each.start > first:
            stop = fold if fold > first else each.start
            lines.append((first, stop))
            first, column = stop, sum(other.columns for other in clusters(text, stop, each.start))
        column += each.columns
        if text[each.end - 1] == " ":
            fold = each.end
        if text[each.end - 1] == "\n":
            lines.append((first, each.end))
            first, column, fold = each.end, 0, each.end
    return [*lines, (first, end)] if first < end else lines


@dataclass(frozen=True)
class _Cluster:
    """A grapheme cluster, which readers call a character: code points [start, end)."""

    start: int
    end: int
    columns: int  # its width in a fixed-width font
    shown: str


def clusters(text: str, begin: int, end: int) -> Iterator[_Cluster]:
    for match in _CLUSTER.finditer(text, begin, end):
        whole = match.group()
        joined = len(whole) > 1 and whole[0].isprintable()  # its joiners and marks belong to what it looks like
        shown = whole if joined else visible(whole)
        yield _Cluster(match.start(), match.end(), _columns(whole if joined else shown), shown)


def _columns(shown: str) -> int:
    """Width of a character in a fixed-width font, with all that is joined to it.

    A joined emoji has at least as many columns as parts, since a font that lacks it shows the parts side by side.
    """
    parts = sum(unicodedata.category(point) not in ("Mn", "Me", "Cf") for point in shown)
    if _EMOJI.search(shown):
        return max(2, parts)
    return 2 if unicodedata.east_asian_width(shown[0]) in "WF" else max(1, parts)


@dataclass(frozen=True)
class _Box:
    x: float
    width: float
    top: float
    bottom: float


class Page:
    """Collects rows from top to bottom; `figure` then draws all of them in a few traces."""

    def __init__(self, theme: Theme, signed: bool = False) -> None:
        self.theme: Theme = theme
        self.signed = signed  # shades are from -1 to 1, on the diverging scale
        self.y = 0.0
        self.cells: list[_Box] = []
        self.shades: list[float] = []
        self.hover: list[str] = []
        self.bars: dict[str, list[_Box]] = {"more": [], "less": []}
        self.glyphs: dict[str, list[tuple[float, float, str]]] = {"ink": [], "soft": []}
        self.cuts: list[tuple[float, float]] = []  # (x, y) where a cell begins

    def add_row(self, text: str, line: tuple[int, int], name: str, row: StillRow) -> None:
        """Add one row of a line: a cell for each token, and its characters."""
        (left, right), start, end, shade = line, row.start, row.end, row.shade
        column = _places(text, line)
        tone = ["soft"] * (right - left)  # tokens without a colour: template or missing
        for i in np.flatnonzero((start < right) & (end > left) & (start >= 0)).tolist():
            a, b = max(int(start[i]), left) - left, min(int(end[i]), right) - left
            if start[i] >= left and (row.begins is None or row.begins[i]):
                self.cuts.append((column[a], self.y))
            if np.isnan(shade[i]):
                continue
            self.cells.append(_Box(column[a], column[b] - column[a], self.y - 0.46, self.y + 0.46))
            self.shades.append(float(shade[i]))
            self.hover.append(f"{name} {row.hover(i)}")
            tone[a:b] = ["ink"] * (b - a)
        self.glyphs["soft"].append((-0.6 - len(name) / 2, self.y, name))
        for each in clusters(text, left, right):
            a, b = each.start - left, each.end - left
            middle = (column[a] + column[b]) / 2
            self.glyphs[tone[a]].append((middle, self.y, html.escape(each.shown, quote=False)))
        self.y += 1.0

    def add_bars(self, text: str, line: tuple[int, int], spans: Iterable[tuple[int, int, float]]) -> None:
        """Add thin bars under a row: characters [start, end) and a height from -1 to 1; up is orange."""
        (left, right), column = line, _places(text, line)
        for a, b, size in spans:
            if a >= right or b <= left:
                continue
            x, x_end = column[max(a, left) - left], column[min(b, right) - left]
            height = 0.3 * size
            box = _Box(x, x_end - x, self.y - max(height, 0) - 0.2, self.y - min(height, 0) - 0.2)
            self.bars["more" if height > 0 else "less"].append(box)
        self.y += 0.6

    def gap(self) -> None:
        """Add space before the next line."""
        self.y += 0.6

    def figure(self, legend: str, margin: int = 3) -> go.Figure:
        """Draw the rows.

        Args:
            legend: text below the rows.
            margin: columns for the names of the rows.
        """
        theme = self.theme
        scale = {
            "color": self.shades,
            "colorscale": colorscale(theme, self.signed),
            "cmin": -1 if self.signed else 0,
            "cmax": 1,
            "line": {"width": 0},
        }
        figure = go.Figure()
        figure.add_trace(_boxes(self.cells, scale, customdata=self.hover, hovertemplate="%{customdata}<extra></extra>"))
        for which, color in (("more", ORANGE[theme]), ("less", BLUE[theme])):
            plain = {"color": color, "line": {"width": 0}}
            figure.add_trace(_boxes(self.bars[which], plain, hoverinfo="skip"))
        x = [value for place, _ in self.cuts for value in (place, place, None)]
        y = [value for _, row in self.cuts for value in (row - 0.46, row + 0.46, None)]
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", line={"color": CARD[theme], "width": 2}, hoverinfo="skip"))
        for tone, color in (("ink", ON_COLOUR[theme]), ("soft", SOFT[theme])):
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
        figure.update_xaxes(range=[-margin, WIDTH + 1], visible=False)
        figure.update_yaxes(range=[self.y, -1], visible=False)
        figure.update_layout(
            width=round(9 * (WIDTH + 1 + margin)), margin={"l": 4, "r": 4, "t": 8, "b": 40}, showlegend=False, bargap=0
        )
        figure.add_annotation(
            text=legend, x=0, y=0, xref="paper", yref="paper", yshift=-30, showarrow=False, xanchor="left"
        )
        return figure


def _places(text: str, line: tuple[int, int]) -> list[float]:
    """Left edge, in columns, of each code point of a line, and the end of the last one."""
    places = [0.0]
    for each in clusters(text, *line):
        left, count = places[-1], each.end - each.start
        places += [left + each.columns * (i + 1) / count for i in range(count)]
    return places


def _boxes(boxes: list[_Box], marker: Mapping[str, object], **hover: object) -> go.Bar:
    return go.Bar(
        x=[box.x + box.width / 2 for box in boxes],
        width=[box.width for box in boxes],
        base=[box.top for box in boxes],
        y=[box.bottom - box.top for box in boxes],
        marker=marker,
        **hover,
    )
