"""The bar at the top of every page that reads a text: two models, the text, Run, and examples."""

from __future__ import annotations

import streamlit as st

from app import state
from app.cache import first_pair
from app.error_net import safely
from app.escape import escape_markdown
from app.submission import TYPED, WIDGETS, Submission, current, of_example, submit, typed_text
from data.samples import samples
from model.hub.catalog import catalog, find
from model.hub.fetch import is_cached

UPLOADS = "uploads"  # how many files were taken, so that the next one meets an empty box
FILES = ["txt", "md", "py", "json", "csv", "log", "tex", "html"]


def workspace_bar() -> Submission:
    """Draw the bar, and return what was submitted in it; what is merely typed is not."""
    now = current()
    for key in WIDGETS:
        st.session_state.setdefault(key, getattr(now, key))
    with st.container(key="workspace_bar", gap="xsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="bar_models"):
            _model("A", state.A)
            _model("B", state.B)
            st.markdown("", width="content", help=_about(now))
            st.toggle(
                "Chat", key=state.CHAT, persist_state="session", on_change=safely(_choose_models),
                help="Each model reads the text in its own chat format; only the text itself is compared. "
                "A model without a template reads the raw text.",
            )  # fmt: skip
            _more()
            st.button("Run", type="primary", key="run_text", shortcut="Mod+Enter", on_click=safely(_run))
        st.text_area(
            "Text", key=state.TEXT, height="content", label_visibility="collapsed", placeholder=_placeholder(now),
            persist_state="session", on_change="ignore",
        )  # fmt: skip
        titles = {sample.name: sample.chip for sample in samples()}
        st.pills(
            "Examples", list(titles), format_func=titles.__getitem__, key=state.EXAMPLE, persist_state="session",
            label_visibility="collapsed", wrap=False, on_change=safely(_choose_example),
        )  # fmt: skip
    return now


def _model(side: str, key: str) -> None:
    names, chosen = [entry.name for entry in catalog()], st.session_state[key]
    with st.container(horizontal=True, vertical_alignment="center", gap="xsmall", key=f"bar_{side}"):
        st.markdown(f"vs **{side}**" if side == "B" else f"**{side}**", width="content")
        st.selectbox(
            f"Model {side}", names if chosen in names else [*names, chosen], key=key,
            persist_state="session", accept_new_options=True, label_visibility="collapsed",
            on_change=safely(_choose_models), placeholder="A name, owner/name on Hugging Face, or a folder",
        )  # fmt: skip


def _about(now: Submission) -> str:
    """Kind, licence and state of the two models, for the help."""
    lines = [
        "Differences are B minus A: A is often the base model, and B the fine-tuned one. Choose a model, or type a "
        "Hugging Face id (owner/name) or the path of a model folder."
    ]
    for side, name in (("A", now.a), ("B", now.b)):
        if (entry := find(name)) is not None:
            fetched = "" if is_cached(name) else ", not fetched yet"
            about = f"{entry.name}: {entry.kind}, {entry.licence}{fetched}"
            lines.append(f"**{side}** {escape_markdown(about)}")
    pair = first_pair()
    if (now.a, now.b) == (pair.a, pair.b):
        lines.append(escape_markdown(pair.why))
    return "  \n".join(lines)


def _placeholder(now: Submission) -> str:
    """What an empty text box says: a file or a conversation is not typed in it."""
    if now.source == "file" and now.content is None:
        return f"This link shows the file {now.file}. Load it under More, or type a text."
    if now.source == "file":
        return f"{now.file}, {len(now.content or b''):,} bytes. Type here to read another text."
    if now.source == "example":
        return "A conversation of several rounds. Type here to read another text."
    return "Type or paste a text"


def _more() -> None:
    with st.popover("More", help="A conversation, or a file"):
        for label, key in (("Assistant's answer", state.ANSWER), ("System message", state.SYSTEM)):
            st.session_state[key] = st.session_state[key]  # in every run, since a closed popover mounts no widget
            st.text_area(label, key=key, height=90, persist_state="session", on_change="ignore")
        key = f"{state.UPLOAD}_{st.session_state.get(UPLOADS, 0)}"
        st.file_uploader(
            "UTF-8 text, or a conversation as JSON", type=FILES, key=key, on_change=safely(_take_file), args=(key,),
            help='A conversation is {"messages": [{"role": "user", "content": "..."}, ...]}.',
        )  # fmt: skip


# Callbacks, which run before the page


def _choose_models() -> None:
    pair = first_pair()
    a, b = str(st.session_state[state.A] or pair.a).strip(), str(st.session_state[state.B] or pair.b).strip()
    submit(a=a or pair.a, b=b or pair.b, chat=bool(st.session_state[state.CHAT]))


def _choose_example() -> None:
    name = st.session_state[state.EXAMPLE] or current().example
    if name is not None:  # a second click chooses none: it restores the text of the example
        submit(**of_example(name))


def _run() -> None:
    now, typed = current(), [str(st.session_state.get(key) or "") for key in TYPED]
    if typed != [now.text, now.answer, now.system]:
        submit(**typed_text(*typed))
    st.session_state.get(state.STOPPED, set()).clear()


def _take_file(key: str) -> None:
    file = st.session_state[key]
    if file is not None:
        st.session_state[UPLOADS] = st.session_state.get(UPLOADS, 0) + 1
        submit(**(typed_text("") | {"file": file.name, "content": file.getvalue()}))
