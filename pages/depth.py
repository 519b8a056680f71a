"""At which layer does each model become sure of the next token, and did fine-tuning move it?"""

import streamlit as st

from analysis.depth.options import DepthView
from analysis.depth.request import read_depth
from app.depth.cards import figure_cards
from app.depth.controls import controls
from app.escape import escape_markdown
from app.run_query import QueryDisplay, answers
from app.sidebar import SidebarInputs
from app.styles import theme
from model.errors import MicroStepError

inputs: SidebarInputs = st.session_state["inputs"]
chosen = controls(inputs)
if chosen.request is not None:
    depth = read_depth(
        chosen.request, lambda questions, run=None: answers(questions, QueryDisplay("reading the layers", run))
    )
    if depth is not None:
        lens = chosen.lens
        if lens == "change":
            try:
                depth.check_change()
            except MicroStepError as error:
                st.info(escape_markdown(str(error)))
                lens = "both"
        view = DepthView(chosen.score, lens, inputs.unit, theme(), segments=chosen.segments)
        figure_cards(chosen.request, depth, view)
