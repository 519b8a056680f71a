"""Reads a store in front of the reader: how far it is, and how to stop."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from analysis.ranking.document_scores import ScoredDocuments
from app.cache import read_stores
from app.error_net import safely
from app.escape import escape_markdown
from app.run_query import Ticker

_STOPPED = "stopped_stores"


def opened(path: Path, name: str) -> ScoredDocuments | None:
    """The documents of a store; None if the reader stopped it.

    Raises:
        TextError: the folder holds no complete store, or it is damaged.
    """
    if (known := read_stores().get(path)) is not None:
        return known
    stopped: set[Path] = st.session_state.setdefault(_STOPPED, set())
    if path in stopped:
        st.info(escape_markdown(f"Reading {name} was stopped."))
        st.button("Read it", type="primary", on_click=safely(stopped.discard), args=(path,), key=f"read_{name}")
        return None
    place = st.empty()
    try:
        with place.container():
            bar = st.progress(0.0, text="reading")
            st.button("Stop", on_click=safely(stopped.add), args=(path,), key=f"stop_{name}")
            return read_stores().read(path, Ticker(bar, escape_markdown(f"reading {name}")))
    finally:
        place.empty()
