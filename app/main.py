"""The app: `streamlit run` imports this file to serve it, and runs it as a script for each visitor."""

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

CAPTIONS = {
    "Uncertainty": "Where is each model unsure of the next token, and what did fine-tuning change?",
    "Depth": "At which layer does each model become sure of the next token, and did fine-tuning move it?",
    "Segmentation": "Where does each strategy start a segment, and do two models agree?",
    "Generation": "Which segments does a micro_step model write, and what does its base write alone?",
    "Attention": "Where does attention go: over the text, by layer and head, and inside a segment?",
    "Attribution": "Which earlier tokens raise a number at one token, and which lower it?",
    "Corpus": "Which documents changed most from model A to B, and which kinds of text?",
    "Runs": "How is training going, and which run is best?",
    "Evaluation": "How good and how fast is each model at each tau, and what did two runs answer?",
}
WITHOUT_TEXT = ("Corpus", "Runs", "Evaluation")


def page_of(name: str, icon: str, default: bool = False) -> st.Page:
    """A page of the folder `pages`."""
    return st.Page(PAGES / f"{name.lower()}.py", title=name, icon=f":material/{icon}:", default=default)


def workbench() -> None:
    """Set up the page, draw what pages share, and run a page."""
    from app.access.settings import settings
    from app.error_net import caught
    from app.links import address
    from app.run_query import says_what_is_stored
    from app.sidebar import sidebar
    from app.state import PAGE
    from app.styles import inject_css
    from app.submission import current
    from app.workspace_bar import workspace_bar

    def open_evaluation() -> None:
        """Open a link to the old address of the evaluation page, with its parameters."""
        query = st.query_params
        st.switch_page(evaluation, query_params={name: query.get_all(name) for name in query})

    st.set_page_config(page_title="micro_step", page_icon=str(HERE / "icon.svg"), layout="wide")
    evaluation = page_of("Evaluation", "leaderboard")
    benchmarks = st.Page(open_evaluation, url_path="benchmarks", visibility="hidden")
    page = st.navigation(
        [
            page_of("Uncertainty", "thermostat", default=True),
            page_of("Depth", "layers"),
            page_of("Segmentation", "content_cut"),
            page_of("Generation", "edit_note"),
            page_of("Attention", "visibility"),
            page_of("Attribution", "balance"),
            page_of("Corpus", "library_books"),
            page_of("Runs", "trending_up"),
            evaluation,
            benchmarks,
        ]
    )
    inject_css()
    if page == benchmarks:
        page.run()
    with address(), caught():
        settings()
        with st.container(horizontal=True, vertical_alignment="bottom", gap="small", key="page_header"):
            st.title(page.title, anchor=False, width="content")
            st.caption(CAPTIONS[page.title].replace("_", "\\_"), width="content")
            stored = st.empty()
        st.session_state[PAGE] = page.title
        st.session_state["inputs"] = sidebar(current() if page.title in WITHOUT_TEXT else workspace_bar())
        with says_what_is_stored(stored):
            page.run()


if __name__ == "__main__":
    workbench()
else:
    from app.server import middleware, started

    app = st.App(Path(__file__), middleware=middleware(), lifespan=started)
