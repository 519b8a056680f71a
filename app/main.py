"""The app: `streamlit run app/main.py`. Sets the page up, draws the sidebar, and hands over to a page."""

import sys
from pathlib import Path

import streamlit as st

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # Streamlit puts only this file's folder on the path
    sys.path.insert(0, str(ROOT))

from app.error_net import caught  # noqa: E402
from app.sidebar import sidebar  # noqa: E402
from app.styles import inject_css  # noqa: E402

st.set_page_config(page_title="micro_step", page_icon="🪜", layout="wide")
inject_css()
page = st.navigation(
    [
        st.Page(ROOT / "pages" / "uncertainty.py", title="Uncertainty", icon="🌡️", default=True),
        st.Page(ROOT / "pages" / "segmentation.py", title="Segmentation", icon="✂️"),
        st.Page(ROOT / "pages" / "generation.py", title="Generation", icon="✍️"),
        st.Page(ROOT / "pages" / "attention.py", title="Attention", icon="👁️"),
        st.Page(ROOT / "pages" / "attribution.py", title="Attribution", icon="⚖️"),
        st.Page(ROOT / "pages" / "runs.py", title="Runs", icon="📈"),
        st.Page(ROOT / "pages" / "evaluation.py", title="Evaluation", url_path="benchmarks", icon="🏁"),
    ]
)
with caught():
    st.session_state["inputs"] = sidebar()
    page.run()
