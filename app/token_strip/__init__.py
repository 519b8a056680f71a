"""The token strip of `analysis/token_strip` as a component of Streamlit, with the pin on wires to and from Python.

    place = token_strip(Strip(text, (TokenRow(...), TokenRow(...), BarRow(...)), legend), key="strip", pinned=place)

`pin` says who moves the pin; `body.js` and `pin.js` are the wires.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import streamlit as st

from analysis.token_strip.height import reserved_height
from analysis.token_strip.packing import pack
from analysis.token_strip.rows import BarRow, Detail, Legend, LineRow, Note, Row, Scale, Strip, TokenRow, TopK
from analysis.token_strip.script import script, style
from app.error_net import safely
from app.token_strip.pin import Pin, TokenChoice, read_choice, read_report, settle

__all__ = [
    "BarRow",
    "Detail",
    "Legend",
    "LineRow",
    "Note",
    "Row",
    "Scale",
    "Strip",
    "TokenChoice",
    "TokenRow",
    "TopK",
    "token_strip",
]


def token_strip(
    strip: Strip,
    *,
    key: str,
    pinned: int | None = None,
    height: int = 480,
    on_pin: Callable[[int | None], None] | None = None,
    on_edit: Callable[[TokenChoice], None] | None = None,
) -> int | None:
    """Draws the strip and returns the pinned place, a code point offset of the text (None: nothing is pinned).

    The last to move the pin wins: the reader in the browser, or the page by a `pinned` other than in its last run.
    A move in the browser runs the script again, and sends nothing of the strip anew.

    Args:
        strip: what to draw.
        key: the widget's key, unique on the page.
        pinned: the place to pin; the strip scrolls there.
        height: of the scrolling part at most, in CSS pixels.
        on_pin: called with the new place before the script runs again, when the reader moved the pin.
        on_edit: called likewise with the token that the reader wants in place of another, chosen in the inspector.
    """

    def report() -> None:
        if on_pin is not None:
            moved = read_report(st.session_state[key].get("pin"))
            on_pin(moved.at if moved else None)

    def choose() -> None:
        choice = read_choice(st.session_state[key].get("edit"))
        if on_edit is not None and choice is not None:
            on_edit(choice)

    packed = pack(strip, key=key, height=height, editable=on_edit is not None)
    with st.container(gap=None, key=f"reserved_{key}"):  # see layout.css
        st.space(reserved_height(strip, height))
        _body_wire(key=f"{key}:body", data=packed.body)
        result = _picture(key=key, data=packed.look, on_pin_change=safely(report), on_edit_change=safely(choose))
        last: Pin | None = st.session_state.get(f"{key}:pin")
        pin = settle(last, asked=pinned, report=read_report(result.get("pin")), length=strip.length)
        st.session_state[f"{key}:pin"] = pin
        # On a wire of its own: to move the pin never sends the strip again.
        _pin_wire(key=f"{key}:wire", data={"strip": key, "at": pin.at, "turn": pin.turn})
    return pin.at


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


_picture = st.components.v2.component("micro_step.token_strip", js=script(), css=style())
_body_wire = st.components.v2.component("micro_step.token_strip_body", js=_read("body.js"))
_pin_wire = st.components.v2.component("micro_step.token_strip_pin", js=_read("pin.js"))
