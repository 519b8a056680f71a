"""What does each token attend to over the whole text, and each token of a segment inside it?"""

import streamlit as st

from app.attention.macro import macro_view
from app.sidebar import SidebarInputs
from app.widgets import segmented

MACRO, MICRO = "Macro", "Micro"

inputs: SidebarInputs = st.session_state["inputs"]
view = segmented(
    "View", [MACRO, MICRO], "view", MACRO,
    help="**Macro**: attention of a model that reads the text token by token, or of a micro\\_step model's base, which "
    "reads it segment by segment.  \n**Micro**: attention of a micro\\_step model's micro decoder inside a segment.",
)  # fmt: skip
if view == MICRO:
    from app.attention.micro import micro_view

    micro_view(inputs)
else:
    macro_view(inputs)
