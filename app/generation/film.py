"""The film of a generation on the page: a component that plays it, and the card around it."""

from __future__ import annotations

import streamlit as st

from analysis.generation.film import Film
from analysis.generation.film_page import script, style
from analysis.generation.result import Generation

LINE, COLUMNS = 26, 115  # of the text: pixels, and characters in a wide window
LEAST, MOST, REST = 144, 240, 240  # pixels: of the text as film.css has it, and of the parts below it

_screen = st.components.v2.component("micro_step.film", js=script(), css=style())


def film_screen(generation: Generation) -> None:
    """Play a generation. Moving through it, or moving tau, runs nothing of the page."""
    reel = Film(generation).reel()
    said = [*(text for _, text in reel["prompt"]), "".join(reel["tokens"])]
    lines = sum(-(-max(len(line), 1) // COLUMNS) for each in said for line in each.split("\n"))
    with st.container(gap=None, key="reserved_film"):  # see layout.css
        st.space(REST + min(max(LINE * lines, LEAST), MOST))
        _screen(key="film_screen", data={"reel": reel, "theme": "inherit"})
