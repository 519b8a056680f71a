"""The address of a page names everything that the page shows, and each change is one step of the browser's Back.

A widget takes its key from `linked`; a choice without a widget is read by `held`. The value is what the reader or a
callback set last, on this page or before a visit to another one; on a first visit and after Back it is what the address
says, or else the first value. `address` writes all values into the address when the page has been drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

_KNOWN, _SHOWN, _OWN, _DRAWING = "link_known", "link_shown", "link_own", "link_drawing"  # in the session
# The server sends it in its first page, before anything is written; `streamlit run app/main.py` sends it with the app.
ONE_STEP = f"<script>{Path(__file__).with_name('one_step.js').read_text('utf-8')}</script>"
Read = Callable[[Sequence[str]], Any]  # the value that the words of an address stand for; ValueError: for none


def went_back() -> bool:
    """Whether the reader pressed Back or Forward: then the address alone says what to show."""
    run = get_script_run_ctx()
    return run is not None and run.is_history_navigation


def linked(key: str, first: Any, read: Read | None = None, formerly: str = "") -> dict[str, Any]:
    """The settings of a widget whose value stands in the address. The widget itself is given no value.

    Args:
        key: of the widget, and its name in the address.
        first: the value of a first visit.
        read: reads other values than of the type of `first`.
        formerly: its name in links of earlier versions.
    """
    held(key, first, read, formerly)
    return {"key": key}


def held(key: str, first: Any, read: Read | None = None, formerly: str = "") -> Any:
    """A value that stands in the address; `st.session_state[key]` sets it."""
    known: dict[str, Any] = st.session_state.setdefault(_KNOWN, {})
    if went_back() or (key not in st.session_state and key not in known):
        words = st.query_params.get_all(key)
        if not words and formerly not in known:
            words = st.query_params.get_all(formerly)
        value = _read(words, first, read)
    else:
        value = st.session_state.get(key, known.get(key))
    known[key] = value
    st.session_state[key] = value  # in every run: a widget in a closed popover begins only when that is opened
    st.session_state.setdefault(_SHOWN, {})[key] = first
    return value


def say(words: Mapping[str, str], among: Sequence[str]) -> None:
    """Let the address say these words, and of the names in `among` no others: what stands for no single value."""
    st.session_state[_OWN] = dict(words), tuple(among)


@contextmanager
def address() -> Iterator[None]:
    """Around a run of a page: afterwards the address names what the page shows, and nothing of other pages."""
    st.session_state[_SHOWN] = {}
    st.session_state[_DRAWING] = True
    done = False
    try:
        with st.sidebar:
            st.html(ONE_STEP, unsafe_allow_javascript=True)
        yield
        done = True
    finally:  # of a run that another one follows at once, the address names what was drawn so far
        st.session_state[_DRAWING] = False
        _write(whole=done)


def fragment_done() -> None:
    """After a run of a part of a page: the address follows. Within a run of the page, the page does it."""
    if not st.session_state.get(_DRAWING, False):
        _write(whole=False)


def _write(whole: bool) -> None:
    known: dict[str, Any] = st.session_state.get(_KNOWN, {})
    shown: dict[str, Any] = st.session_state.get(_SHOWN, {})
    own, among = st.session_state.get(_OWN, ({}, ()))
    before = {key: st.query_params.get_all(key) for key in st.query_params}
    after = {key: [word] for key, word in own.items()}
    for key, words in before.items():
        if key not in among and (not whole or key not in known or key in shown):
            after[key] = words
    for key, first in shown.items():
        value = known[key] = st.session_state.get(key, known.get(key))
        if value is None or (value == first and value in ("", [])):
            after.pop(key, None)
        else:
            after[key] = _words(value)
    if after != before:
        st.query_params.from_dict(after)


def _words(value: Any) -> list[str]:
    if isinstance(value, list | tuple):
        return [str(each) for each in value] or [""]
    if isinstance(value, bool):
        return [str(value).lower()]
    if isinstance(value, float) and value.is_integer():
        return [str(int(value))]
    return [str(value)]


def _read(words: Sequence[str], first: Any, read: Read | None) -> Any:
    """The value that words stand for; `first` without words, or if they stand for no value."""
    try:
        return first if not words else (read or _like(first))(words)
    except ValueError:
        return first


def _like(first: Any) -> Read:
    """Reads values of the type of another one."""
    if isinstance(first, bool):
        return lambda words: {"true": True, "false": False}.get(words[-1].lower(), first)
    if isinstance(first, int | float):
        return lambda words: _number(type(first)(words[-1]))
    if isinstance(first, list):
        return lambda words: [word for word in words if word]
    return lambda words: words[-1]


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("no number")
    return value
