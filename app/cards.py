"""The card around every figure: its title, what it shows, the figure, and its Export menu.

A card or a part of a page that is folded shows its title only. What it would draw is neither computed nor sent until
the reader opens it:

    card(draw("curves", shown), provenance, folded=True)
    fold("roles", "By role", lambda: role_tables(comparison, view))
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from analysis.export import IMAGES, NO_CHROME, ImageFormat, bundle, image, page, standalone, table_bytes
from analysis.figures.figure import Figure
from analysis.provenance import Provenance
from app import state
from app.cache import static_images
from app.error_net import download, fragment, safely
from app.escape import escape_markdown
from app.state import pin
from app.submission import current

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
    folded: bool = False,
) -> None:
    """Draw a figure in a card.

    Args:
        drawn: the figure with its title, caption and data.
        origin: how the figure was made, for the bundle.
        body: draws something else in place of the figure, such as the token strip or a table.
        pin_from: returns the character to pin for a clicked point of the figure.
        on_pin: pins that character.
        folded: only the title shows until the reader opens the card; before, the figure and its data are not made.
    """

    def draw() -> None:
        with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="right", gap="small"):
            if not folded:
                st.markdown(f"**{escape_markdown(drawn.title)}**", width="stretch")
            with st.container(width="content"):
                export_menu(drawn, origin)
        st.caption(escape_markdown(drawn.caption, longest=1000))
        if body is not None:
            body()
        else:
            _chart(drawn, pin_from, on_pin)

    if folded:
        fold(drawn.name, drawn.title, draw)
    else:
        with st.container(border=True, key=f"card_{drawn.name}"):
            draw()


def opening(finding: str, drawn: Figure, origin: Provenance, body: Callable[[], object]) -> None:
    """What a page opens with: its finding in one sentence, the token strip, and below it what is to be known of it.

    Args:
        finding: the sentence.
        drawn: the strip as a figure, for export.
        origin: how it was made.
        body: draws the strip.
    """
    with st.container(key=f"opening_{drawn.name}", gap="xsmall"):
        with st.container(key="finding"):
            st.markdown(escape_markdown(finding, longest=400))
        body()
        with st.container(horizontal=True, gap="small"):
            with st.container(width="content"):
                export_menu(drawn, origin)
            st.caption(escape_markdown(drawn.caption, longest=1000), width="stretch")


def fold(name: str, title: str, draw: Callable[[], object]) -> None:
    """Draw a part of a page that is folded under its title; the link names it once it is open.

    Args:
        name: of the part in the link, unique in the app.
        title: what the reader clicks on.
        draw: computes and draws the part. It is called only while the part is open.
    """
    key = f"open_{name}"
    st.session_state[key] = name in state.opened()

    def toggled() -> None:
        state.toggle(name, st.session_state[key])

    place = st.expander(f"**{escape_markdown(title)}**", key=key, on_change=safely(toggled))
    if place.open:
        with place, st.container(key=f"card_{name}"):
            draw()


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


@fragment
def export_menu(drawn: Figure, origin: Provenance) -> None:
    """Draw the one menu of a card, whose items are drawn when it is open. A file is made when it is asked for."""
    menu = st.popover("Export", key=f"menu_{drawn.name}", type="tertiary", on_change="rerun")
    if menu.open:
        with menu, st.container(key=f"export_{drawn.name}", width=520):
            with st.container(horizontal=True, gap="small"):
                _files(drawn, origin)
            _words(drawn, origin)


def _files(drawn: Figure, origin: Provenance) -> None:
    """Draw a button for each format."""
    for kind, make in exports(drawn, origin).items():
        no_chrome = kind in IMAGES and not static_images()
        st.download_button(
            LABELS.get(kind, kind.upper()),
            data=download(make),
            file_name=f"micro_step-{drawn.name}.{kind}",
            mime=MIME[kind],
            key=f"export_{drawn.name}_{kind}",
            disabled=no_chrome,
            on_click="ignore",
            help=NO_CHROME
            if no_chrome
            else "The figure, its data, the text, and a manifest with the command that reproduces it"
            if kind == "zip"
            else None,
        )


def _words(drawn: Figure, origin: Provenance) -> None:
    """What can be copied: the link, and the command."""
    st.caption("Link to this page as it is now")
    st.code(page_link(), language=None, wrap_lines=True)
    for said in _not_in_link(origin):
        st.caption(escape_markdown(said, longest=400))
    st.caption("Command that reproduces the data, run in the unpacked bundle")
    st.code(origin.command(drawn.name, "figure.csv"), language="bash", wrap_lines=True)

    if origin.python is not None:
        st.caption("Python that draws the figure")
        st.code(origin.python(drawn.name), language="python", wrap_lines=True)


def _not_in_link(origin: Provenance) -> list[str]:
    """What the link leaves out of what the page shows."""
    submitted = current().not_in_link() if origin.read else ""  # a page without models reads no text
    trusted = "The link does not allow models to run code of their own: whoever opens it ticks that again."
    return [*([submitted] if submitted else []), *([trusted] if st.session_state.get(state.TRUST) else [])]


def page_link() -> str:
    """An absolute link to what the page shows."""
    said = {key: st.query_params.get_all(key) for key in st.query_params}
    return f"{st.context.url}?{urlencode(said, doseq=True)}"


def exports(drawn: Figure, origin: Provenance) -> dict[str, Callable[[], bytes]]:
    """What makes the file of each format."""
    return {
        **{kind: partial(_image, drawn, origin, kind) for kind in IMAGES},
        "html": lambda: page(drawn, origin).encode("utf-8"),
        "csv": lambda: table_bytes(drawn.data, "csv"),
        "parquet": lambda: table_bytes(drawn.data, "parquet"),
        "zip": lambda: bundle(drawn, origin),
    }


def _image(drawn: Figure, origin: Provenance, kind: ImageFormat) -> bytes:
    """Draw the figure only now: a static picture of a long text takes a second."""
    return image(standalone(drawn, origin), kind)
