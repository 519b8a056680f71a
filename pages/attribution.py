"""What does a number at one token depend on: which tokens before it raise it, and which lower it?"""

import streamlit as st

from app.attribution.cards import result_cards
from app.attribution.controls import controls
from app.run_query import QueryDisplay, run_or_get
from app.sidebar import SidebarInputs

inputs: SidebarInputs = st.session_state["inputs"]
choice, options = controls(inputs)
if choice is not None:
    scored = run_or_get(choice.scores())
    segments = run_or_get(choice.segments(), QueryDisplay("segmenting")) if scored is not None else None
    if scored is not None and segments is not None:
        result_cards(choice, scored, segments, inputs.unit, options)
