"""Which documents changed most from model A to B, and which kinds of text?"""

from collections.abc import Sequence

import streamlit as st

from analysis.discovery import Found, Place
from analysis.ranking.answer import notes
from analysis.ranking.discovery import find_stores
from analysis.ranking.pairing import Pairing, pairing
from analysis.ranking.ranking import ranking
from app.access.settings import SHIPPED, settings
from app.corpus.cards import group_cards, ranking_card, sentences, summary
from app.corpus.controls import DEFAULT_FOLDER, choose, folder, view
from app.corpus.reading import opened
from app.escape import escape_markdown
from app.sidebar import SidebarInputs
from app.widgets import ROOT
from model.errors import MicroStepError

EXAMPLE_COMMAND = "micro-step corpus score --model tiny-sft --data texts.jsonl --out stores/tiny-sft"

inputs: SidebarInputs = st.session_state["inputs"]


def read(places: Sequence[Place]) -> Pairing | None:
    """The stores, read and matched; None if the reader stopped."""
    sides = [opened(place.path, place.name) for place in places]
    if any(side is None for side in sides):
        return None
    return pairing(*(side for side in sides if side is not None))


def page() -> None:
    """The choice of stores, and what they say."""
    parent = folder()
    try:
        found = settings().own("stores", find_stores(parent))
    except MicroStepError as error:
        found, problem = Found(()), str(error)
    else:
        problem = f"There is no complete store of scores in {parent} yet."
    if not found.places:
        st.info(escape_markdown(problem))
        st.caption("This command scores a corpus, one document a line; run it for each model:")
        st.code(EXAMPLE_COMMAND, language="bash")
        return
    if parent == ROOT / SHIPPED["stores"]:
        st.caption(
            "A small corpus of 40 texts that comes with micro\\_step, each with its domain. To see your own, run "
            f"`{EXAMPLE_COMMAND}` for each model and type the folder, `{DEFAULT_FOLDER}`."
        )
    chosen = choose(found)
    if found.left_out:
        st.caption(f"{found.left_out:,} older stores are left out. Choose a folder that holds fewer.")
    pair = read(chosen)
    if pair is None:
        return
    try:
        ranked = ranking(pair, view(pair, inputs.unit))
    except MicroStepError as error:
        st.info(escape_markdown(str(error)))
        return
    summary(ranked)
    if said := notes(pair):
        st.caption(escape_markdown(sentences(said), longest=2000))
    ranking_card(ranked)
    group_cards(ranked)


page()
