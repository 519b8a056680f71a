"""Keys of the session state, and the parts of the URL that Streamlit cannot bind to a widget.

Streamlit binds most widgets to the URL itself (`bind="query-params"`). This module handles the rest: a typed text, as
long as it is short, and the pinned character.
"""

from __future__ import annotations

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

A, B = "a", "b"
CHAT, TEMPLATE, FORCE_BOS, UNIT, SOURCE, EXAMPLE = "chat", "template", "bos", "unit", "source", "example"
TEXT, ANSWER, SYSTEM, FILE, UPLOAD = "text", "answer", "system", "file", "upload"
PINNED, PINNED_ANSWER = "at", "token"  # a character of the text, and of the answer that a model wrote
STOPPED = "stopped"  # the queries that the user stopped
OPEN = "open"  # the names of the folded cards that are open
SWEEPS = "sweeps"  # the sweeps over tau that the user started
STORED = "stored"  # the queries of this page whose answers come with the project
ACCEPTED = "accepted"  # the heavy queries that the user started all the same
LONGEST_IN_URL = 2000  # characters


def went_back() -> bool:
    """Whether the reader pressed Back or Forward: then the address alone says what to show."""
    run = get_script_run_ctx()
    return run is not None and run.is_history_navigation


def pinned(key: str = PINNED) -> int | None:
    """The pinned character: its index in the text, or None."""
    if key not in st.session_state or went_back():
        in_link = st.query_params.get(key, "")
        st.session_state[key] = int(in_link) if in_link.isascii() and in_link.isdigit() and len(in_link) < 10 else None
    place: int | None = st.session_state[key]
    return place


def pin(at: int | None, key: str = PINNED) -> None:
    """Pin a character in every figure of the page, and put it into the URL."""
    st.session_state[key] = at
    if at is None:
        st.query_params.pop(key, None)
    else:
        st.query_params[key] = str(at)


def opened() -> list[str]:
    """The names of the folded cards that are open."""
    if OPEN not in st.session_state:
        st.session_state[OPEN] = st.query_params.get_all(OPEN)
    names: list[str] = st.session_state[OPEN]
    return names


def toggle(name: str, is_open: bool) -> None:
    """Open or close a folded card, and say so in the URL."""
    names = [each for each in opened() if each != name] + ([name] if is_open else [])
    st.session_state[OPEN] = st.query_params[OPEN] = names


def recall(key: str) -> str:
    """The initial value of a text box: what was typed on an earlier page, or what the URL holds."""
    if key not in st.session_state or went_back():
        st.session_state[key] = st.query_params.get(key, "")
    value: str = st.session_state[key]
    return value


def remember(key: str, value: str) -> None:
    """Put a typed text into the URL if it is short enough for a link."""
    if value and len(value) <= LONGEST_IN_URL:
        if st.query_params.get(key) != value:
            st.query_params[key] = value
    else:
        st.query_params.pop(key, None)
