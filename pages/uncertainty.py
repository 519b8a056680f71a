"""Where is each model unsure of the next token, and what did fine-tuning change?"""

import streamlit as st

from analysis.uncertainty.request import ComparisonQuery
from analysis.uncertainty.summary import summarise
from analysis.view import View
from app.run_query import run_or_get
from app.sidebar import SidebarInputs
from app.state import pinned
from app.styles import theme
from app.uncertainty.cards import figure_cards, role_tables, summary_card
from app.uncertainty.controls import controls

inputs: SidebarInputs = st.session_state["inputs"]
score, new_tokens, sampling = controls()
ready = inputs.ready()
if ready is not None:
    query = ComparisonQuery(*ready, new_tokens, sampling)
    comparison = run_or_get(query)
    if comparison is not None:
        view = View(score, inputs.unit, theme(), pinned())
        summary_card(comparison, summarise(comparison, inputs.unit, score=score))
        figure_cards(query, comparison, view)
        role_tables(comparison, view)
