"""What does a micro_step model write, in which segments, and what does the base write alone?"""

import streamlit as st

from analysis.generation.request import GenerationRequest
from app.escape import escape_markdown
from app.generation.cards import answer_cards
from app.generation.controls import controls
from app.sidebar import SidebarInputs

inputs: SidebarInputs = st.session_state["inputs"]
if inputs.problem:
    st.error(escape_markdown(inputs.problem))
elif inputs.a is None or inputs.b is None:
    st.info("Choose a model in the sidebar.")
else:
    chosen = controls(inputs.a, inputs.b, inputs.text)
    if chosen.prompt is None:
        st.info("There is no prompt yet. Choose an example, type one, or load a file in the sidebar.")
    else:
        request = GenerationRequest(chosen.spec, chosen.prompt, chosen.decoding, chosen.side)
        answer_cards(request, inputs.unit)
