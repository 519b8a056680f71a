"""Bits per byte of the documents of a grid: of each variant on each mix, and by place in the segment on the first."""

from html import escape
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.export import save_figure
from analysis.figures.figure import Figure
from analysis.figures.theme import SERIES, styled
from analysis.provenance import Provenance
from analysis.view import Theme
from evals.ablation.documents import GridDocuments, document_table, place_table
from model.command_options import command_line
from model.terminal import one_line

_HEIGHT, _ROW = 480, 34
_SYMBOLS = ("circle", "diamond-open", "square-open")  # of the mixes
_LEAST_SHARE = 0.02  # of the bytes: a place with fewer is not drawn


def figure_of(documents: GridDocuments, theme: Theme = "light") -> Figure:
    """Return the figure and its data, a row per mix, variant and place; the rows without a place are of all places."""
    seeds = len(next(iter(next(iter(documents.found.values())).values())))
    return Figure(
        "documents",
        f"Bits per byte of held-out documents: {documents.grid}",
        f"Lower is better. Left: all bytes, with 95% intervals over documents for the mean of {seeds} seeds. Right: by"
        f" place in the segment, in the model's own units (0: its first token or byte), on {_first(documents)}.",
        lambda: _draw(documents, theme),
        lambda: _data(documents),
    )


def save(documents: GridDocuments, path: Path) -> None:
    """Write the figure; the suffix chooses the format.

    Raises:
        ExportError: as `save_figure`.
    """
    words = ("eval", "ablate", documents.grid, "--trained-only")
    origin = Provenance(lambda name, out: command_line(*words, "--figure", out), {"grid": documents.grid}, {}, {})
    save_figure(figure_of(documents), path, origin)


def _first(documents: GridDocuments) -> str:
    return Path(next(iter(documents.found))).stem


def _data(documents: GridDocuments) -> pd.DataFrame:
    tables = []
    for mix, variants in documents.found.items():
        tables += [each.assign(mix=Path(mix).stem) for each in (document_table(variants), place_table(variants))]
    return pd.concat(tables, ignore_index=True)


def _draw(documents: GridDocuments, theme: Theme) -> go.Figure:
    drawn = make_subplots(rows=1, cols=2, column_widths=[0.55, 0.45], horizontal_spacing=0.08)
    colors = SERIES[theme]
    for i, (mix, variants) in enumerate(documents.found.items()):
        table = document_table(variants)
        drawn.add_scatter(
            x=table["bits_per_byte"],
            y=[_label(name) for name in table["variant"]],
            error_x={
                "array": table["bits_per_byte_high"] - table["bits_per_byte"],
                "arrayminus": table["bits_per_byte"] - table["bits_per_byte_low"],
            },
            mode="markers",
            marker={
                "symbol": _SYMBOLS[i % len(_SYMBOLS)],
                "size": 9,
                "color": [colors[j % len(colors)] for j in range(len(table))],
            },
            error_x_color=colors[-2],
            name=_label(Path(mix).stem),
            row=1,
            col=1,
        )
    places = place_table(next(iter(documents.found.values())))
    for i, (name, rows) in enumerate(places.groupby("variant", sort=False)):
        shown = rows[rows["bytes"] >= _LEAST_SHARE * rows["bytes"].sum()]
        drawn.add_scatter(
            x=shown["place"],
            y=shown["bits_per_byte"],
            mode="lines+markers",
            line={"color": colors[i % len(colors)], "dash": "dot" if i >= len(colors) else "solid"},
            name=_label(str(name)),
            showlegend=False,
            row=1,
            col=2,
        )
    drawn = styled(drawn, theme, _HEIGHT)
    drawn.update_xaxes(title="bits per byte", row=1, col=1)
    drawn.update_yaxes(autorange="reversed", row=1, col=1)
    drawn.update_xaxes(title="place in the segment", row=1, col=2)
    drawn.update_yaxes(title="bits per byte", row=1, col=2)
    return drawn


def _label(text: str) -> str:
    """Escape a name, since Plotly reads labels as HTML."""
    return escape(one_line(text), quote=False)
