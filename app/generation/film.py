"""The film of a generation on the page: a component that plays it, and the card around it."""

from __future__ import annotations

import streamlit as st

from analysis.generation.film import Film
from analysis.generation.film_page import script, style
from analysis.generation.result import Generation
from app.styles import theme

_screen = st.components.v2.component("micro_step.film", js=script(), css=style())


def film_screen(generation: Generation) -> None:
    """Play a generation. Moving through it, or moving tau, runs nothing of the page."""
    _screen(key="film_screen", data={"reel": Film(generation).reel(), "theme": theme()})
