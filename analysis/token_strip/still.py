"""The start of a strip as HTML without scripts or style sheets: what a notebook shows where neither may run.

Text and colours are inline and escaped, so that they pass the sanitizers of notebooks that are not trusted.
"""

from __future__ import annotations

import html

import numpy as np
from numpy.typing import NDArray

from analysis.figures.figure import visible
from analysis.figures.static_strip import wrap
from analysis.figures.theme import DIVERGING, ON_COLOUR, SEQUENTIAL, SOFT
from analysis.token_strip.packing import safe
from analysis.token_strip.rows import RANGE, Strip, TokenRow

LONGEST = 1000  # characters
SEGMENTS = ("#ffffff", "#dfe1e4")  # neighbouring segments differ in tone


def still_html(strip: Strip) -> str:
    """The first LONGEST characters of each text, row below row, in the colours of the light theme."""
    lines: list[str] = []
    left = 0
    for text, rows in strip.blocks():
        shown = [row for row in rows if isinstance(row, TokenRow) and not row.hidden]
        width = max((len(row.key) for row in shown), default=0)
        fills = [_fills(row) for row in shown]
        for span in wrap(text, 0, min(len(text), LONGEST)):
            lines += [_line(text, span, row, fill, width) for row, fill in zip(shown, fills, strict=True)]
            lines.append("")
        left += max(0, len(text) - LONGEST)
    legend = strip.legend
    ends = f"{legend.low} (light) to {legend.high} (dark)" if legend.scale == "sequential" else ""
    if legend.scale == "diverging":
        ends = f"{legend.low} (blue), {legend.high} (orange)"
    more = f"{left:,} more characters are not shown" if left else ""
    foot = html.escape(safe("; ".join(part for part in (ends, legend.note, more) if part)))
    look = f"color:{ON_COLOUR['light']};background-color:#ffffff;padding:8px;line-height:1.6"
    return f'<pre style="{look}">{chr(10).join(lines)}</pre><p>{foot}</p>'


def _line(text: str, span: tuple[int, int], row: TokenRow, fills: list[str], width: int) -> str:
    """One row on one line of the text: its key, and a coloured piece for each token."""
    first, end = span
    parts = [html.escape(safe(visible(row.key.ljust(width + 1), width + 1).replace("·", " ")))]
    at = first
    for i in np.flatnonzero((row.start < end) & (row.end > first)).tolist():
        a, b = max(int(row.start[i]), at), min(int(row.end[i]), end)
        if a >= b:
            continue  # another token has shown these characters
        faint = row.muted is not None and bool(row.muted[i])
        look = f"background-color:{fills[i]}" + (f";color:{SOFT['light']}" if faint else "")
        parts += [_shown(text, at, a), f'<span style="{look}">{_shown(text, a, b)}</span>']
        at = b
    return "".join([*parts, _shown(text, at, end)])


def _shown(text: str, start: int, end: int) -> str:
    return html.escape(safe(visible(text[start:end], end - start)))


def _fills(row: TokenRow) -> list[str]:
    """The colour of each token: of its value, or of its segment."""
    if row.value is None:
        starts = np.zeros(len(row.start), dtype=bool) if row.boundary is None else row.boundary
        return [SEGMENTS[number % 2] for number in np.cumsum(starts).tolist()]
    ramp = np.array((DIVERGING if row.scale == "diverging" else SEQUENTIAL)["light"], dtype=np.float64)
    low, high = RANGE[row.scale]
    share = (np.nan_to_num(row.value, nan=low if low == 0 else 0.0) - low) / (high - low)
    stops = np.linspace(0, 1, len(ramp))
    mixed: NDArray[np.int64] = np.rint([np.interp(share, stops, channel) for channel in ramp.T]).astype(np.int64)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in mixed.T.tolist()]
