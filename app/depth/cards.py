"""The parts of the depth page: the finding with the strip, the heat map, and folded figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st

from analysis.depth.answer import depth_notes
from analysis.depth.figures import TOKENS, draw
from analysis.depth.options import DepthView
from analysis.depth.request import DepthRequest
from analysis.depth.result import Depth
from analysis.depth.tables import correlation, decision
from analysis.strips.depth import depth_strip
from app.cards import card, opening
from app.error_net import fragment
from app.escape import escape_markdown
from app.state import pin, pinned
from app.token_strip import token_strip
from app.widgets import stepper

START = "layers_from"  # first token of the heat map, of a long text


@fragment
def figure_cards(request: DepthRequest, depth: Depth, shown: DepthView) -> None:
    """Everything below the controls. A pin redraws only this."""
    view = replace(shown, pinned=pinned())
    longest = max(len(side.scored.encoded) for side in depth.sides)

    def pin_place(place: int | None) -> None:
        pin(place)
        if longest > TOKENS and place is not None:
            st.session_state[START] = _window_of(depth, place)

    strip = depth_strip(depth, view)
    origin = request.origin(depth, view)
    opening(
        decision(depth),
        draw("strip", depth, view),
        origin,
        body=lambda: token_strip(strip, key="depth", pinned=view.pinned, on_pin=pin_place),
    )
    notes = [f"{note}." for note in depth_notes(depth)]
    st.caption(escape_markdown(" ".join([correlation(depth), *notes]), longest=2000))
    if longest > TOKENS:
        start = stepper(
            "From token", range(0, longest, TOKENS), longest, START,
            f"The heat map shows {TOKENS} tokens at a time. A pin turns to the tokens around it.",
        )  # fmt: skip
        view = replace(view, start=start)
        origin = request.origin(depth, view)
    card(draw("heatmap", depth, view), origin)
    for name in ("layers", "decided", "agreement"):
        card(draw(name, depth, view), origin, folded=True)


def _window_of(depth: Depth, place: int) -> int:
    """The first token of the window that holds a character of the text."""
    before = depth.sides[0].scored.encoded.source_end <= place
    return int(np.flatnonzero(~before)[0]) // TOKENS * TOKENS if not before.all() else 0
