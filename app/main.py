"""The app, started by `streamlit run app/main.py`: sets up the page, draws the sidebar, and runs a page."""

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
from app.run_query import says_what_is_stored  # noqa: E402
from app.sidebar import sidebar  # noqa: E402
from app.styles import inject_css  # noqa: E402

st.set_page_config(page_title="micro_step", page_icon="🪜", layout="wide")
inject_css()
evaluation = st.Page(PAGES / "evaluation.py", title="Evaluation", icon="🏁")


def open_evaluation() -> None:
    """Open a link to the old address of the evaluation page, with its parameters."""
    query = st.query_params
    st.switch_page(evaluation, query_params={name: query.get_all(name) for name in query})


benchmarks = st.Page(open_evaluation, url_path="benchmarks", visibility="hidden")
page = st.navigation(
    [
        st.Page(PAGES / "uncertainty.py", title="Uncertainty", icon="🌡️", default=True),
        st.Page(PAGES / "segmentation.py", title="Segmentation", icon="✂️"),
        st.Page(PAGES / "generation.py", title="Generation", icon="✍️"),
        st.Page(PAGES / "attention.py", title="Attention", icon="👁️"),
        st.Page(PAGES / "attribution.py", title="Attribution", icon="⚖️"),
        st.Page(PAGES / "runs.py", title="Runs", icon="📈"),
        evaluation,
        benchmarks,
    ]
)
if page == benchmarks:
    page.run()  # before the sidebar, whose widgets would bind the parameters
with caught():
    st.session_state["inputs"] = sidebar()
    with says_what_is_stored():
        page.run()
