"""The address of a page names everything that the page shows, and each change is one step of the browser's Back.

A widget takes its key from `linked`; a choice without a widget is read by `held`. The value is what the reader or a
callback set last, on this page or before a visit to another one; on a first visit and after Back it is what the address
says, or else the first value. `address` writes all values into the address when the page has been drawn, and says which
words of a link could not be used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from app.escape import escape_markdown

# In the session: values by key; what this run shows, and what it read, by name; words that stand for no single value;
# words that could not be used, by name; all names; whether the page is being drawn
_KNOWN, _SHOWN, _READ, _OWN = "link_known", "link_shown", "link_read", "link_own"
_REPLACED, _NAMES, _DRAWING = "link_replaced", "link_names", "link_drawing"
# The server sends it in its first page, before anything is written; where only the script is run, the app sends it.
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


def held(key: str, first: Any, read: Read | None = None, formerly: str = "", name: str = "") -> Any:
    """A value that stands in the address, as `name` if not as `key`; `st.session_state[key]` sets it."""
    known: dict[str, Any] = st.session_state.setdefault(_KNOWN, {})
    name = name or key
    st.session_state.setdefault(_NAMES, set()).update({name, formerly} - {""})
    if went_back() or (key not in st.session_state and key not in known):
        words = st.query_params.get_all(name)
        if not words and formerly not in known:
            words = st.query_params.get_all(formerly)
        value = first
        if words:
            st.session_state.setdefault(_READ, {})[name] = words[-1]
            try:
                value = (read or _like(first))(words)
            except (ValueError, OverflowError):
                replaced(name, words[-1], first)
    else:
        value = st.session_state.get(key, known.get(key))
    known[key] = value
    st.session_state[key] = value  # in every run: a widget in a closed popover begins only when that is opened
    st.session_state.setdefault(_SHOWN, {})[name] = key, first
    return value


def settle(key: str, value: Any) -> None:
    """Give a widget another value than the one that `held` gave, which it cannot show."""
    read: dict[str, str] = st.session_state.get(_READ, {})
    if key in read and st.session_state.get(key) != value:
        replaced(key, read[key], value)
    st.session_state[key] = value


def replaced(name: str, word: str, value: Any) -> None:
    """Note that the page shows a value in place of a word of the address, which stands for none."""
    if word:
        st.session_state.setdefault(_REPLACED, {})[name] = word, value


def say(words: Mapping[str, str], among: Sequence[str]) -> None:
    """Let the address say these words, and of the names in `among` no others: what stands for no single value."""
    st.session_state[_OWN] = dict(words), tuple(among)


@contextmanager
def address() -> Iterator[None]:
    """Around a run of a page: afterwards the address names what the page shows, and nothing of other pages."""
    st.session_state[_SHOWN], st.session_state[_READ] = {}, {}
    st.session_state[_DRAWING] = True
    done = False
    try:
        with st.sidebar:
            st.html(ONE_STEP, unsafe_allow_javascript=True)
        place = st.empty()
        yield
        done = True
        if said := _not_used():
            place.warning(escape_markdown(said, longest=1000))
    finally:  # of a run that another one follows at once, the address names what was drawn so far
        st.session_state[_DRAWING] = False
        _write(whole=done)


def fragment_done() -> None:
    """After a run of a part of a page: the address follows. Within a run of the page, the page does it."""
    if not st.session_state.get(_DRAWING, False):
        _write(whole=False)


def _not_used() -> str:
    """Which words of the address could not be used, as long as the page shows what it showed in their place."""
    noted: dict[str, tuple[str, Any]] = st.session_state.get(_REPLACED, {})
    shown: dict[str, tuple[str, Any]] = st.session_state.get(_SHOWN, {})
    own, _ = st.session_state.get(_OWN, ({}, ()))
    now = dict(own) | {name: st.session_state.get(key) for name, (key, _) in shown.items()}
    still = {name: note for name, note in noted.items() if name in now and now[name] == note[1]}
    st.session_state[_REPLACED] = still
    said = [f"{name}={word[:40]}{_instead(value)}" for name, (word, value) in still.items()]
    return f"This link holds values that cannot be used here: {'; '.join(said)}." if said else ""


def _instead(value: Any) -> str:
    words = " ".join(_words(value)) if value is not None else ""
    return f" (the page shows {words})" if words else ""


def _write(whole: bool) -> None:
    known: dict[str, Any] = st.session_state.get(_KNOWN, {})
    shown: dict[str, tuple[str, Any]] = st.session_state.get(_SHOWN, {})
    names: set[str] = st.session_state.get(_NAMES, set())
    own, among = st.session_state.get(_OWN, ({}, ()))
    before = {name: st.query_params.get_all(name) for name in st.query_params}
    after = {name: [word] for name, word in own.items()}
    for name, words in before.items():
        if name not in among and (not whole or name not in names or name in shown):
            after[name] = words
    for name, (key, first) in shown.items():
        value = known[key] = st.session_state.get(key, known.get(key))
        if value is None or (value == first and value in ("", [])):
            after.pop(name, None)
        else:
            after[name] = _words(value)
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


def _like(first: Any) -> Read:
    """Reads values of the type of another one."""
    if isinstance(first, bool):
        return lambda words: _boolean(words[-1])
    if isinstance(first, int | float):
        return lambda words: _number(type(first)(words[-1]))
    if isinstance(first, list):
        return lambda words: [word for word in words if word]
    return lambda words: words[-1]


def _boolean(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ValueError("neither true nor false")
    return word.lower() == "true"


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("no number")
    return value
