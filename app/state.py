"""Keys of the session state, and choices that no widget holds: the pinned character, and the open cards."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from app.links import held

A, B = "a", "b"
CHAT, TEMPLATE, FORCE_BOS, UNIT, SOURCE, EXAMPLE = "chat", "template", "bos", "unit", "source", "example"
TEXT, ANSWER, SYSTEM, FILE, UPLOAD = "text", "answer", "system", "file", "upload"
TRUST = "trust"  # whether code that comes with models may run; in no link
PINNED, PINNED_ANSWER = "at", "token"  # a character of the text, and of the answer that a model wrote
STOPPED = "stopped"  # the queries that the user stopped
PAGE = "page"  # the title of the page that is drawn
OPEN = "open"  # the names of the folded cards that are open
SWEEPS = "sweeps"  # the sweeps over tau that the user started
STORED = "stored"  # the queries of this page whose answers come with the project
ACCEPTED = "accepted"  # the heavy queries that the user started all the same
LONGEST_IN_URL = 2000  # characters


def pinned(key: str = PINNED) -> int | None:
    """The pinned character: its index in the text, or None."""
    place: int | None = held(key, None, _place)
    return place


def _place(words: Sequence[str]) -> int:
    if not (words[-1].isascii() and words[-1].isdigit() and len(words[-1]) < 10):
        raise ValueError("no place")
    return int(words[-1])


def pin(at: int | None, key: str = PINNED) -> None:
    """Pin a character in every figure of the page."""
    st.session_state[key] = at


def opened() -> list[str]:
    """The names of the folded cards of this page that are open."""
    names: list[str] = held(_open_here(), [], name=OPEN)
    return names


def toggle(name: str, is_open: bool) -> None:
    """Open or close a folded card."""
    st.session_state[_open_here()] = [each for each in opened() if each != name] + ([name] if is_open else [])


def _open_here() -> str:
    return f"{OPEN}_on_{st.session_state.get(PAGE, '')}"  # two pages may have cards of one name
