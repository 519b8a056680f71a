"""The film of a generation on the page: a component that plays it, and the card around it."""

from __future__ import annotations

import streamlit as st

from analysis.generation.film import Film
from analysis.generation.film_page import script, style
from analysis.generation.result import Generation
from app.error_net import fragment, safely
from app.links import held, went_back

LINE, COLUMNS = 26, 115  # of the text: pixels, and characters in a wide window
LEAST, MOST, REST = 144, 240, 240  # pixels: of the text as film.css has it, and of the parts below it

FILM_TAU, _PLAYED = "film_tau", "film_played"  # in the session: tau of the film, and the generation that it shows

_screen = st.components.v2.component("micro_step.film", js=script(), css=style())


@fragment
def film_screen(generation: Generation) -> None:
    """Play a generation. Moving through it runs nothing of the page; where tau comes to rest stands in the address."""
    reel = Film(generation).reel()
    known = [play["tau"] for play in reel["plays"]]
    tau = held(FILM_TAU, None, lambda words: known[known.index(words[-1])])
    now = generation.facts.name, generation.how, generation.micro.text
    before, st.session_state[_PLAYED] = st.session_state.get(_PLAYED), now
    if tau not in known or (before not in (None, now) and not went_back()):
        tau = st.session_state[FILM_TAU] = None  # of another film

    def moved() -> None:
        chosen = st.session_state["film_screen"].get("tau")
        st.session_state[FILM_TAU] = chosen if chosen in known else None

    said = [*(text for _, text in reel["prompt"]), "".join(reel["tokens"])]
    lines = sum(-(-max(len(line), 1) // COLUMNS) for each in said for line in each.split("\n"))
    with st.container(gap=None, key="reserved_film"):  # see layout.css
        st.space(REST + min(max(LINE * lines, LEAST), MOST))
        data = {"reel": reel, "theme": "inherit", "tau": tau or ""}
        _screen(key="film_screen", data=data, on_tau_change=safely(moved))
