"""Where is each model unsure of the next token, and what did fine-tuning change?"""

import streamlit as st

from analysis.uncertainty.request import ComparisonQuery
from analysis.view import View
from app.run_query import run_or_get
from app.sidebar import SidebarInputs
from app.styles import theme
from app.uncertainty.cards import figure_cards, role_tables
from app.uncertainty.controls import controls

inputs: SidebarInputs = st.session_state["inputs"]
chosen = controls(chat=inputs.text is not None and inputs.text.chat)
ready = inputs.ready()
if ready is not None:
    query = ComparisonQuery(*ready, chosen.new_tokens, chosen.sampling)
    comparison = run_or_get(query)
    if comparison is not None:
        view = View(
            chosen.score, inputs.unit, theme(), None, lens=chosen.lens, measure=chosen.measure,
            with_template=chosen.with_template,
        )  # fmt: skip
        figure_cards(query, comparison, view)
        role_tables(comparison, view)
