"""What does each token attend to over the whole text, and each token of a segment inside it?"""

import streamlit as st

from app.attention.macro import macro_view
from app.sidebar import SidebarInputs
from app.widgets import segmented

MACRO, MICRO = "Macro", "Micro"

inputs: SidebarInputs = st.session_state["inputs"]
line = st.container(horizontal=True, vertical_alignment="center", gap="small", key="controls_line")
with line:
    view = segmented(
        "View", [MACRO, MICRO], "view", MACRO, label_visibility="collapsed", width="content",
        format_func={MACRO: "over the text", MICRO: "inside segments"}.__getitem__,
    )  # fmt: skip
if view == MICRO:
    from app.attention.micro import micro_view

    micro_view(inputs, line)
else:
    macro_view(inputs, line)
