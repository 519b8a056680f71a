"""What does a micro_step model write, in which segments, and what does the base write alone?"""

import streamlit as st

from analysis.generation.request import GenerationRequest
from app.escape import escape_markdown
from app.generation.cards import answer_cards, recording_cards
from app.generation.controls import choose_film, controls, run_button
from app.sidebar import SidebarInputs

inputs: SidebarInputs = st.session_state["inputs"]
with st.container(horizontal=True, vertical_alignment="center", key="films"):
    recording = choose_film()
    problem, request, asked = inputs.problem, None, False
    if not problem and inputs.a is not None and inputs.b is not None:
        chosen = controls(inputs.a, inputs.b, inputs.text)
        if chosen.prompt is not None:
            request = GenerationRequest(chosen.spec, chosen.prompt, chosen.decoding, chosen.side)
            asked = run_button(request)
if recording is not None:
    recording_cards(recording, inputs.unit)
elif problem:
    st.error(escape_markdown(problem))
elif request is None:
    st.info("There is no prompt yet. Type one at the top, or choose an example.")
else:
    answer_cards(request, asked, inputs.unit)
