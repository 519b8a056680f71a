"""Names of what is kept in the session, and what stands in the URL.

Widgets of the sidebar are bound to the URL by Streamlit itself (`bind="query-params"`); here is what it cannot bind:
a typed text, as long as it is short, and the pinned character.
"""

from __future__ import annotations

import streamlit as st

A, B = "a", "b"
CHAT, TEMPLATE, FORCE_BOS, UNIT, SOURCE, EXAMPLE = "chat", "template", "bos", "unit", "source", "example"
TEXT, ANSWER, SYSTEM, UPLOAD = "text", "answer", "system", "upload"
PINNED, PINNED_ANSWER = "at", "token"  # a character of the text; of the answer that a model wrote
STOPPED = "stopped"  # the request that the user stopped
ACCEPTED = "accepted"  # requests that the user started although they are heavy
LONGEST_IN_URL = 2000  # characters of a typed text


def pinned(key: str = PINNED) -> int | None:
    """The pinned character of the text."""
    if key not in st.session_state:
        said = st.query_params.get(key, "")
        st.session_state[key] = int(said) if said.isascii() and said.isdigit() and len(said) < 10 else None
    at: int | None = st.session_state[key]
    return at


def pin(at: int | None, key: str = PINNED) -> None:
    """Pin a character for every figure of the page, and put it into the URL."""
    st.session_state[key] = at
    if at is None:
        st.query_params.pop(key, None)
    else:
        st.query_params[key] = str(at)


def recall(key: str) -> str:
    """A typed text from an earlier page or the URL: the initial value of its widget."""
    if key not in st.session_state:
        st.session_state[key] = st.query_params.get(key, "")
    value: str = st.session_state[key]
    return value


def remember(key: str, value: str) -> None:
    """Put a typed text into the URL while it is short enough for a link."""
    if value and len(value) <= LONGEST_IN_URL:
        if st.query_params.get(key) != value:
            st.query_params[key] = value
    else:
        st.query_params.pop(key, None)
