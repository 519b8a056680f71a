"""Widgets that several pages share: they stand in links, and fall back where a link or a model took a choice away."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from analysis.discovery import Found
from analysis.segmentation.strategy import Strategy
from app.error_net import safely
from app.escape import escape_markdown
from app.sidebar import SidebarInputs
from model.hub.wrap_base import micro_step_info
from model.segmentation.segment import MAX_LENGTH, RULES

NO_TEXT = "There is no text yet: choose an example, type one, or load a file in the sidebar."
MOST_CAP = 64  # M
Option = TypeVar("Option")


def default(key: str, value: object) -> None:
    """What a widget shows first; not its own default, so that links name it."""
    if key not in st.session_state and key not in st.query_params:
        st.session_state[key] = value


def segmented(label: str, options: Sequence[Option], key: str, first: Option, **more: Any) -> Option:
    """One of a few; a choice that is not offered any more falls back to the first."""
    default(key, first)
    if st.session_state.get(key, first) not in options:
        st.session_state[key] = first
    found: Option | None = st.segmented_control(label, options, key=key, bind="query-params", required=True, **more)
    return first if found is None else found  # a link may have named none that there is


def folder_of(label: str, key: str, first: str, meaning: str) -> Path:
    """A typed folder; `meaning` says what it holds."""
    default(key, first)
    typed = st.text_input(
        label, key=key, bind="query-params", persist_state="session",
        help=f"{meaning} A path that does not begin with / starts where the app was started.",
    )  # fmt: skip
    try:
        return Path(str(typed).strip() or ".").expanduser()
    except RuntimeError:  # the home folder of a user that there is not
        return Path(str(typed))


def settle_choice(found: Found, key: str, first: int, most: int) -> list[str]:
    """Before the widget that chooses among found folders: what a link asks for and is there, or the newest; all names.

    Args:
        found: the folders.
        key: of the widget.
        first: how many a first visit chooses.
        most: how many can be chosen.
    """
    names = [place.name for place in found.places]
    asked = st.session_state.get(key) or st.query_params.get_all(key)
    there = [name for name in asked if name in names][:most]
    if there != list(asked) or not asked:
        gone = [name for name in asked if name not in names]
        if gone and len(gone) < 10:
            st.info(escape_markdown(f"Not in this folder: {', '.join(gone)}."))
        if key not in st.session_state:
            st.query_params[key] = st.session_state[key] = there or names[:first]  # a link names what it shows
        elif asked:  # of another folder; but the reader may take all away
            st.session_state[key] = there or names[:first]
    return names


def indexed_selectbox(label: str, options: Sequence[str], key: str, first: int = 0, **more: Any) -> int:
    """The number of a choice from a list that may change; the first one if what was chosen is gone."""
    asked = st.session_state.get(key, st.query_params.get(key) if "bind" in more else None)
    if asked not in options:
        st.session_state[key] = options[first]
    return list(options).index(str(st.selectbox(label, options, key=key, **more)))


def stepper(label: str, numbers: Sequence[int], highest: int, key: str, help: str) -> int:
    """One of some rising numbers, typed or stepped to; a number that is not among them leads to the next that is.

    Args:
        label: of the number.
        numbers: at least one.
        highest: that any choice of numbers may hold: the widget's own bounds do not move.
        key: of the number; it stands in the link.
        help: of the number.
    """
    linked, last = st.query_params.get(key, ""), st.session_state.get(f"{key}_last")
    asked = st.session_state.get(key, int(linked) if linked.isascii() and linked.isdigit() else numbers[0])
    at = min(bisect_left(numbers, asked), len(numbers) - 1)
    if numbers[at] != asked and last is not None and asked < last:
        at = max(0, at - 1)
    st.session_state[key] = st.session_state[f"{key}_last"] = numbers[at]

    def go(to: int) -> None:
        st.session_state[key] = numbers[to]

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button("◀ Previous", key=f"{key}_previous", disabled=at == 0, on_click=safely(go), args=(at - 1,))
        st.number_input(label, 0, highest, key=key, bind="query-params", persist_state="session", help=help, width=150)
        st.button("Next ▶", key=f"{key}_next", disabled=at == len(numbers) - 1, on_click=safely(go), args=(at + 1,))
        st.caption(f"{at + 1:,} of {len(numbers):,}")
    return numbers[at]


def segments_of(inputs: SidebarInputs, what_for: str) -> tuple[str, int]:
    """Draw which strategy cuts the text and at how many tokens at most, and read it: the strategy as a word, and M.

    Args:
        inputs: the sidebar's.
        what_for: begins the help: what the segments are for.
    """
    strategy = st.selectbox(
        "Segments", _strategies(inputs), key="cut_by", bind="query-params", accept_new_options=True, width=280,
        help=f"{what_for} Choose one, or type one as in entropy:threshold=1.2 (in nats); **word** needs no scores.",
    )  # fmt: skip
    cap = st.number_input(
        "Most tokens, M", 1, MOST_CAP, MAX_LENGTH, key="cap", bind="query-params", width=130,
        help="No segment has more tokens; a micro_step model's own M is never passed.",
    )  # fmt: skip
    return str(strategy or "word"), int(cap)


def _strategies(inputs: SidebarInputs) -> list[str]:
    """Rules with their defaults, as words; the one that needs a trained micro_step model only where there is one."""
    specs = [spec for spec in (inputs.a, inputs.b) if spec is not None]
    trained = any(saved is not None and not saved.untrained for saved in (micro_step_info(spec.name) for spec in specs))
    names = ["word", *(name for name in RULES if name != "word")]
    return [str(Strategy.of(name)) for name in names if trained or "micro_step" not in RULES[name].needs]
