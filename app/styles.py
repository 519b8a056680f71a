"""Styles that Streamlit's theme does not offer: where things stand, a background for cards, a small Export menu."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from analysis.figures.theme import CARD, LINE, SOFT
from analysis.view import Theme


def theme() -> Theme:
    """The reader's theme."""
    return "dark" if st.context.theme.type == "dark" else "light"


def inject_css() -> None:
    """Add the style sheet in the colours of the reader's theme. It holds constants only, never text from a user."""
    now = theme()
    st.html(
        f"<style>{LAYOUT}{_COLOURS}</style>".replace("CARD", CARD[now])
        .replace("LINE", LINE[now])
        .replace("SOFT", SOFT[now])
    )


LAYOUT = Path(__file__).with_name("layout.css").read_text("utf-8")
_COLOURS = """
[class*="st-key-card_"], [class*="st-key-open_"] details { background: CARD; }
[class*="st-key-menu_"] button { border: 1px solid LINE; color: SOFT; }
"""
