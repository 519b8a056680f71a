"""The height that a strip will have, so that what stands below it does not move once the browser has drawn it.

It is that of a wide window, whose columns are known here; in a narrow one the strip is at least as high. The heights of
rows are read from `layout.js`; the other figures are those of `strip.css`, in pixels.
"""

from __future__ import annotations

import re
import textwrap
from itertools import islice
from pathlib import Path

from analysis.token_strip.rows import BarRow, LineRow, Row, Strip, TokenRow

WIDTH, PANEL = 1042, 348  # pixels, of the strip and of the panel beside the text with its gap
CHARACTER = 8.43
_HEIGHTS = re.search(r"const Height = .*", Path(__file__).with_name("layout.js").read_text("utf-8"))
HEIGHT = {name: int(pixels) for name, pixels in re.findall(r"(\w+): (\d+)", _HEIGHTS.group() if _HEIGHTS else "")}
TOOLS, LEGEND, LEGEND_LINE, PADDING = 28, 24, 22, 4
PANEL_LOW, PANEL_TALL = 215, 552
MOST_BESIDE = 3  # rows whose panel stands beside the text


def reserved_height(strip: Strip, most: int) -> int:
    """The height of a strip whose scrolling part has `most` pixels at most."""
    rows = [row for row in strip.rows if isinstance(row, TokenRow)]
    beside = len({row.key for row in rows}) <= MOST_BESIDE
    panel = PANEL_TALL if any(row.topk is not None for row in rows) else PANEL_LOW
    width = WIDTH - PANEL if beside else WIDTH
    gutter = min(max(26.0, max(len(row.key) for row in strip.rows) * 6.8 + 12), 160.0)
    columns = int((width - gutter) / CHARACTER) - 1
    text = len(strip.turns) * HEIGHT["TURN"]
    for words, block in strip.blocks():
        each = sum(_row_height(row) for row in block if isinstance(row, LineRow) or not row.hidden) + HEIGHT["GAP"]
        text += (0 if strip.aligned else HEIGHT["HEAD"]) + each * _lines(words, columns, -(-most // each))
    main = min(text, most) + PADDING + (TOOLS if strip.overview else 0) + LEGEND
    return max(main + LEGEND_LINE, panel) if beside else main + HEIGHT["GAP"] + panel


def _row_height(row: Row) -> int:
    if isinstance(row, TokenRow):
        return HEIGHT["TOKENS"] + (HEIGHT["LABELS"] if row.labels is not None else 0)
    return HEIGHT["BARS"] if isinstance(row, BarRow) else HEIGHT["LINE"]


def _lines(text: str, columns: int, most: int) -> int:
    """How many lines a text takes, counted up to `most`."""
    begins = text[: columns * most].split("\n")
    lines = (len(textwrap.wrap(each, columns, drop_whitespace=False)) or 1 for each in begins)
    return min(sum(islice(lines, most)), most)
