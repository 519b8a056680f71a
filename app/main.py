"""The app: `streamlit run app/main.py`. Sets the page up, draws the sidebar, and hands over to a page."""

import sys
from pathlib import Path

import streamlit as st

HERE = Path(__file__).resolve().parent
PAGES = HERE.parent / "pages"
root = HERE  # Streamlit puts only this folder on the path, and the packages are imported from above the outermost one
while (root / "__init__.py").is_file():
    root = root.parent
if str(root) not in sys.path:
    sys.path.insert(0, str(root))

from app.error_net import caught  # noqa: E402
from app.sidebar import sidebar  # noqa: E402
from app.styles import inject_css  # noqa: E402

st.set_page_config(page_title="micro_step", page_icon="🪜", layout="wide")
inject_css()
page = st.navigation(
    [
        st.Page(PAGES / "uncertainty.py", title="Uncertainty", icon="🌡️", default=True),
        st.Page(PAGES / "segmentation.py", title="Segmentation", icon="✂️"),
        st.Page(PAGES / "generation.py", title="Generation", icon="✍️"),
        st.Page(PAGES / "attention.py", title="Attention", icon="👁️"),
        st.Page(PAGES / "attribution.py", title="Attribution", icon="⚖️"),
        st.Page(PAGES / "runs.py", title="Runs", icon="📈"),
        st.Page(PAGES / "evaluation.py", title="Evaluation", url_path="benchmarks", icon="🏁"),
    ]
)
with caught():
    st.session_state["inputs"] = sidebar()
    page.run()
