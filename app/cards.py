"""The card around every figure: its title, what it shows, the figure, and the export buttons."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from analysis.export import IMAGES, NO_CHROME, ImageFormat, bundle, image, page, table_bytes
from analysis.figures.figure import Figure
from analysis.provenance import Provenance
from app.cache import static_images
from app.error_net import download, safely
from app.escape import escape_markdown
from app.state import pin

LABELS = {"parquet": "Parquet", "zip": "bundle"}
MIME = {
    "png": "image/png",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "html": "text/html",
    "csv": "text/csv",
    "parquet": "application/vnd.apache.parquet",
    "zip": "application/zip",
}


def card(
    drawn: Figure,
    origin: Provenance,
    body: Callable[[], object] | None = None,
    pin_from: Callable[[dict[str, Any]], int | None] | None = None,
    on_pin: Callable[[int], None] = pin,
) -> None:
    """Draw a figure in a card.

    Args:
        drawn: the figure with its title, caption and data.
        origin: how the figure was made, for the bundle.
        body: draws something else in place of the figure, such as the token strip or a table.
        pin_from: returns the character to pin for a clicked point of the figure.
        on_pin: pins that character.
    """
    with st.container(border=True, key=f"card_{drawn.name}"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key=f"export_{drawn.name}"):
            st.markdown(f"**{escape_markdown(drawn.title)}**", width="stretch")
            _export(drawn, origin)
        st.caption(escape_markdown(drawn.caption))
        if body is not None:
            body()
        else:
            _chart(drawn, pin_from, on_pin)


def _chart(
    drawn: Figure, pin_from: Callable[[dict[str, Any]], int | None] | None, on_pin: Callable[[int], None]
) -> None:
    key = f"chart_{drawn.name}"
    config = {
        "displaylogo": False,
        "toImageButtonOptions": {"format": "svg", "filename": f"micro_step-{drawn.name}"},
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
    }
    if pin_from is None:
        st.plotly_chart(drawn.figure, key=key, theme=None, config=config, width="stretch")
        return

    def clicked() -> None:
        points = st.session_state[key]["selection"]["points"]
        if points and (at := pin_from(points[0])) is not None:
            on_pin(at)

    st.plotly_chart(
        drawn.figure,
        key=key,
        theme=None,
        config=config,
        width="stretch",
        on_select=safely(clicked),
        selection_mode="points",
    )


def _export(drawn: Figure, origin: Provenance) -> None:
    """Draw a button for each format. A file is made only when its button is pressed."""
    drawers: dict[str, Callable[[], bytes]] = {
        **{kind: partial(_image, drawn, kind) for kind in IMAGES},
        "html": lambda: page(drawn).encode("utf-8"),
        "csv": lambda: table_bytes(drawn.data, "csv"),
        "parquet": lambda: table_bytes(drawn.data, "parquet"),
        "zip": lambda: bundle(drawn, origin),
    }
    for kind, make in drawers.items():
        no_chrome = kind in IMAGES and not static_images()
        st.download_button(
            LABELS.get(kind, kind.upper()),
            data=download(make),
            file_name=f"micro_step-{drawn.name}.{kind}",
            mime=MIME[kind],
            key=f"export_{drawn.name}_{kind}",
            type="tertiary",
            disabled=no_chrome,
            on_click="ignore",
            help=NO_CHROME
            if no_chrome
            else "The figure, its data, the text, and a manifest with the command that reproduces it"
            if kind == "zip"
            else None,
        )


def _image(drawn: Figure, kind: ImageFormat) -> bytes:
    """Draw the figure only now: a static picture of a long text takes a second."""
    return image(drawn.figure, kind)
