"""A figure for each benchmark: the score with its standard error against tokens per macro step.

A micro_step model is a line through its values of tau; a plain model is a horizontal line with its band, as it writes
one token a step.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import plotly.graph_objects as go

from data.corpus.store_write import put
from evals.report import Row
from model.errors import ExportError
from model.terminal import one_line

Format = Literal["html", "svg", "png", "pdf"]
_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
)  # Okabe and Ito, safe for the colour-blind
_GREY = "#555555"
_SIZE = {"width": 760, "height": 420}
_SECONDS = 90


def figure(rows: Sequence[Row]) -> go.Figure:
    """The figure of one benchmark.

    Args:
        rows: of the same benchmark.
    """
    benchmark = rows[0].benchmark
    scale = 100 if benchmark.higher_is_better else 1
    drawn = go.Figure()
    for row in (row for row in rows if row.tau is None):
        drawn.add_hline(
            row.score.value * scale, line={"color": _GREY, "dash": "dash"}, name=_safe(row.name), showlegend=True
        )
        if row.score.stderr > 0:
            low, high = ((row.score.value + sign * row.score.stderr) * scale for sign in (-1, 1))
            drawn.add_hrect(low, high, fillcolor=_GREY, opacity=0.12, line_width=0)
    for i, model in enumerate(dict.fromkeys(row.model for row in rows if row.tau is not None)):
        mine = sorted(
            (row for row in rows if row.model == model and row.tau is not None), key=lambda row: -(row.tau or 0)
        )
        drawn.add_scatter(
            x=[row.tokens_per_macro_step for row in mine],
            y=[row.score.value * scale for row in mine],
            error_y={"array": [row.score.stderr * scale for row in mine], "thickness": 1},
            text=[f"τ {row.tau:g}" for row in mine],
            textposition="top center",
            mode="lines+markers+text",
            name=_safe(model),
            line={"color": _COLOURS[i % len(_COLOURS)]},
        )
    unit = ", %" if benchmark.higher_is_better else ""
    drawn.update_layout(
        title=_safe(benchmark.title),
        xaxis={"title": "tokens a macro step"},
        yaxis={"title": _safe(benchmark.metric) + unit, "rangemode": "nonnegative"},
        template="plotly_white",
        showlegend=True,
        margin={"l": 70, "r": 30, "t": 50, "b": 55},
        **_SIZE,
    )
    if not any(row.tau is not None for row in rows):
        drawn.update_xaxes(range=[0.5, 2])
    return drawn


def _safe(text: str) -> str:
    """Plotly reads labels as HTML."""
    return html.escape(one_line(text), quote=False)


def write_figures(rows: Sequence[Row], folder: Path, kind: Format) -> list[Path]:
    """Write a figure of each benchmark into a folder, made if it is not there.

    Raises:
        ExportError: the folder cannot be written, or there is no Chrome to draw an image with.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder} cannot be made: {error.strerror}") from None
    out = []
    for name in dict.fromkeys(row.benchmark.name for row in rows):
        drawn = figure([row for row in rows if row.benchmark.name == name])
        path = folder / f"{name}.{kind}"
        if kind == "html":
            content = str(drawn.to_html(include_plotlyjs=True, include_mathjax=False)).encode()
        else:
            content = _image(drawn, kind)
        put(path, content)
        out.append(path)
    return out


def _image(drawn: go.Figure, kind: Format) -> bytes:
    import kaleido
    from choreographer.browsers.chromium import Chromium

    if not Chromium.find_browser(skip_local=False):
        raise ExportError(f"{kind} needs Chrome or Chromium on this machine; --figure-format html does not")
    options: dict[str, Any] = {"format": kind, "scale": 2 if kind == "png" else 1, **_SIZE}
    try:
        found = kaleido.calc_fig_sync(drawn, opts=options, kopts={"mathjax": False, "timeout": _SECONDS})
    except Exception as error:
        raise ExportError(f"the image could not be drawn ({error}); html needs no browser") from error
    return bytes(found)
