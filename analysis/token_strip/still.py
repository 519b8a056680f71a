"""The start of a strip as HTML without scripts or style sheets: what a notebook shows where neither may run.

Text and colours are inline and escaped, so that they pass the sanitizers of notebooks that are not trusted. The colours
are translucent and lie under the page's own ink, so that the picture is dark in a dark page.
"""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from analysis.figures.figure import visible
from analysis.figures.static_strip import clusters, wrap
from analysis.figures.theme import DIVERGING, RGB, SEQUENTIAL
from analysis.token_strip.packing import safe
from analysis.token_strip.rows import RANGE, Strip, TokenRow

LONGEST = 1000  # characters
ABOVE, BELOW = SEQUENTIAL["light"][-1], DIVERGING["dark"][0]  # orange; blue, for values below zero
STRONGEST = 0.75  # opacity of a colour; a page's ink is readable on it, 4.5 to 1 (WCAG 2.2, 1.4.3)
MUTED = 0.4  # part of the opacity that is left of a muted token
TONE = "#80808040"  # of every other segment, and of tokens without a score
SOFT = "#767676"  # muted text
MARK = "box-shadow:inset 2px 0 #767676;"  # the notch that starts a segment
FRAME = "box-shadow:0 0 0 1px #80808080;"  # around the scale in the caption
SWATCHES = 5  # colours of the scale in the caption


def still_html(strip: Strip) -> str:
    """The first LONGEST characters of each text, row below row, and a caption that names what is drawn."""
    lines: list[str] = []
    left = 0
    for text, rows in strip.blocks():
        shown = [row for row in rows if isinstance(row, TokenRow) and not row.hidden]
        width = max((len(row.key) for row in shown), default=0)
        looks = [_looks(row) for row in shown]
        for span in wrap(text, 0, min(len(text), LONGEST)):
            lines += [_line(text, span, row, look, width) for row, look in zip(shown, looks, strict=True)]
            lines.append("")
        left += max(0, len(text) - LONGEST)
    return (
        f'<pre style="white-space:pre;overflow:auto;line-height:1.6">{chr(10).join(lines)}</pre>'
        f"<p>{_caption(strip, left)}</p>"
    )


def _caption(strip: Strip, left: int) -> str:
    """What the colours and marks mean, which rows there are, and how many characters are not drawn."""
    legend = strip.legend
    rows = [row for row in strip.rows if isinstance(row, TokenRow) and not row.hidden]
    parts = [f"{row.key}: {row.title}" for row in rows]
    if legend.note not in ("", *(row.title for row in rows)):
        parts.append(legend.note)
    if any((row.start[1:] < row.end[:-1]).any() for row in rows):
        parts.append("one character of several tokens has the colour of the first")
    if left:
        parts.append(f"{left:,} more characters are not shown")
    words = html.escape(safe("; ".join(parts)))
    scale = ""
    if legend.scale != "none":
        low, high = (html.escape(safe(end)) for end in (legend.low, legend.high))
        values = np.linspace(*RANGE[legend.scale], SWATCHES)
        swatches = "".join(_swatch(fill) for fill in _fills(values))
        scale = f"{low} {_piece(FRAME, swatches)} {high}; "
    missing = any(row.value is not None and np.isnan(row.value).any() for row in rows)
    return f"{scale}{f'{_swatch(TONE)} no score; ' if missing else ''}{words}"


def _swatch(fill: str) -> str:
    return _piece(f"background-color:{fill};" if fill else "", "\u00a0\u00a0\u00a0")


def _line(text: str, span: tuple[int, int], row: TokenRow, looks: list[str], width: int) -> str:
    """One row on one line of the text: its key, and a coloured piece for each token."""
    first, end = span
    parts = [html.escape(safe(visible(row.key.ljust(width + 1), width + 1).replace("·", " ")))]
    at = first
    for i in np.flatnonzero((row.start < end) & (row.end > first)).tolist():
        a, b = max(int(row.start[i]), at), min(int(row.end[i]), end)
        if a >= b:
            continue  # another token has shown these characters
        begins = row.boundary is not None and row.boundary[i] and a == row.start[i]
        parts += [_shown(text, at, a), _piece(looks[i] + MARK if begins else looks[i], _shown(text, a, b))]
        at = b
    return "".join([*parts, _shown(text, at, end)])


def _piece(look: str, shown: str) -> str:
    return f'<span style="{look}">{shown}</span>' if look else shown


def _shown(text: str, start: int, end: int) -> str:
    return html.escape(safe("".join(cluster.shown for cluster in clusters(text, start, end))))


def _looks(row: TokenRow) -> list[str]:
    """The style of each token: the colour of its value or of its segment, and faint text where it is muted."""
    if row.value is None:
        starts = np.zeros(len(row.start), dtype=bool) if row.boundary is None else row.boundary
        fills = [TONE if number % 2 else "" for number in np.cumsum(starts).tolist()]
    else:
        fills = _fills(row.value, 1.0 if row.muted is None else np.where(row.muted, MUTED, 1.0))
    looks = [f"background-color:{fill};" if fill else "" for fill in fills]
    if row.muted is not None:
        looks = [f"{look}color:{SOFT};" if faint else look for look, faint in zip(looks, row.muted, strict=True)]
    return looks


def _fills(value: NDArray[np.floating], part: NDArray[np.floating] | float = 1.0) -> list[str]:
    """The colour of each value, with an opacity that grows from zero; "" where there is none."""
    opacity = np.rint(np.nan_to_num(np.abs(value)) * part * STRONGEST * 255).astype(np.int64)
    above, below = _code(ABOVE), _code(BELOW)
    return [
        TONE if np.isnan(v) else f"{below if v < 0 else above}{strength:02x}" if strength else ""
        for v, strength in zip(value.tolist(), opacity.tolist(), strict=True)
    ]


def _code(colour: RGB) -> str:
    return "#" + "".join(f"{channel:02x}" for channel in colour)
