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
    """Add the style sheet. It holds constants only, never text from a user."""
    st.html(f"<style>{LAYOUT}{_COLOURS}</style>")


def _both(colour: dict[str, str]) -> str:
    """A colour that follows the theme at once, where it changes under an open page."""
    return f"light-dark({colour['light']}, {colour['dark']})"


LAYOUT = Path(__file__).with_name("layout.css").read_text("utf-8")
_COLOURS = f"""
[class*="st-key-card_"], [class*="st-key-open_"] details {{ background: {_both(CARD)}; }}
[class*="st-key-menu_"] button {{ border: 1px solid {_both(LINE)}; color: {_both(SOFT)}; }}
[data-testid="stCaptionContainer"], [data-testid="stCaptionContainer"] :is(p, code) {{
  color: {_both(SOFT)}; opacity: 1;
}}
[data-testid="stPopoverBody"] [data-testid="stCaptionContainer"] :is(p, code) {{ color: inherit; }}
[data-testid="stBaseButton-primary"] *, [data-testid="stMultiSelect"] [data-tag] * {{
  color: {_both({"light": "#ffffff", "dark": "#15171a"})};
}}
"""
