"""What does each token, or each segment, attend to: over the whole text, and inside a segment?"""

import streamlit as st

from app.attention.macro import macro_view
from app.sidebar import SidebarInputs

MACRO, MICRO = "Macro", "Micro"

inputs: SidebarInputs = st.session_state["inputs"]
st.title("Attention", anchor=False)
st.caption("Where attention goes: over the text, layer by layer and head by head, and inside a segment.")
view = st.segmented_control(
    "View", [MACRO, MICRO], default=MACRO, key="view", bind="query-params", required=True,
    help="**Macro**: of the model that reads the text token by token, or of a micro_step model's base, which reads it "
    "segment by segment.  \n**Micro**: of a micro_step model's micro decoder, inside a segment.",
)  # fmt: skip
if view == MICRO:
    from app.attention.micro import micro_view

    micro_view(inputs)
else:
    macro_view(inputs)
