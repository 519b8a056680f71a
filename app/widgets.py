"""Widgets that pages share. Their values stand in the link, and fall back where a link or a model no longer fits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from analysis.discovery import Found
from app.error_net import safely
from app.escape import escape_markdown
from model.scoring.scores import Sampling

Option = TypeVar("Option")


def linked(key: str, kept: bool = False) -> dict[str, Any]:
    """The settings of a widget whose value stands in the link; a `kept` one also survives a visit to another page."""
    settings = {"key": key, "bind": "query-params"}
    return settings | {"persist_state": "session"} if kept else settings


def default(key: str, value: object) -> None:
    """Set the first value of a widget. Links name it, unlike the widget's own default."""
    if key not in st.session_state and key not in st.query_params:
        st.session_state[key] = value


def whole(label: str, low: int, high: int, first: int, key: str, **more: Any) -> int:
    """Draw a box for a whole number, and read it."""
    return int(st.number_input(label, low, high, first, **linked(key), **more))


def decimal(label: str, low: float, high: float, first: float, step: float, key: str, **more: Any) -> float:
    """Draw a box for a decimal number, and read it."""
    return float(st.number_input(label, low, high, first, step, **linked(key), **more))


def segmented(
    label: str, options: Sequence[Option], key: str, first: Option, kept: bool = False, **more: Any
) -> Option:
    """Draw a few options side by side, and read the choice; one that is no longer offered falls back to the first."""
    default(key, first)
    if st.session_state.get(key, first) not in options:
        st.session_state[key] = first
    choice: Option | None = st.segmented_control(label, options, required=True, **linked(key, kept), **more)
    return first if choice is None else choice  # a link may have named an option that does not exist


def indexed_selectbox(label: str, options: Sequence[str], key: str, first: int = 0, **more: Any) -> int:
    """The index of the choice in a list that may change; the first option if the earlier choice is gone."""
    current = st.session_state.get(key, st.query_params.get(key) if "bind" in more else None)
    if current not in options:
        st.session_state[key] = options[first]
    return list(options).index(str(st.selectbox(label, options, key=key, **more)))


def sampling_inputs() -> Sampling:
    """Draw temperature, top-p and seed, and read them."""
    temperature = decimal(
        "Temperature", 0.0, 5.0, 0.0, 0.1, "temperature",
        help="0 is greedy. All scores and probabilities shown are the model's own, before the temperature.",
    )  # fmt: skip
    top_p = decimal("Top-p", 0.05, 1.0, 1.0, 0.05, "top_p")
    return Sampling(temperature, top_p, whole("Seed", 0, 2**31 - 1, 0, "seed"))


def folder_input(label: str, key: str, first: str, meaning: str) -> Path:
    """Draw a box for the path of a folder, and read it; `meaning` says what the folder holds."""
    default(key, first)
    typed = st.text_input(
        label, **linked(key, kept=True),
        help=f"{meaning} A relative path starts in the folder where the app was started.",
    )  # fmt: skip
    try:
        return Path(str(typed).strip() or ".").expanduser()
    except RuntimeError:  # the home folder of a user who does not exist
        return Path(str(typed))


def settle_choice(found: Found, key: str, first: int, limit: int) -> list[str]:
    """Before a multiselect of folders is drawn, set it to what the link names and exists, or to the newest folders.

    Args:
        found: the folders.
        key: of the widget.
        first: how many folders a first visit chooses.
        limit: how many can be chosen.

    Returns:
        The names of all folders.
    """
    names = [place.name for place in found.places]
    wanted = st.session_state.get(key) or st.query_params.get_all(key)
    existing = [name for name in wanted if name in names][:limit]
    if existing != list(wanted) or not wanted:
        gone = [name for name in wanted if name not in names]
        if gone and len(gone) < 10:
            st.info(escape_markdown(f"Not in this folder: {', '.join(gone)}."))
        if key not in st.session_state:
            st.query_params[key] = st.session_state[key] = existing or names[:first]  # a link names what it shows
        elif wanted:  # left over from another folder; an empty choice stays empty
            st.session_state[key] = existing or names[:first]
    return names


def row_table(table: Any, key: str, on_row: Callable[[int], object], **more: Any) -> None:
    """Draw a table; choosing a row calls `on_row` with its place, from 0."""

    def choose_row() -> None:
        rows = st.session_state[key]["selection"]["rows"]
        if rows:
            on_row(rows[0])

    st.dataframe(
        table, key=key, on_select=safely(choose_row), selection_mode="single-row", hide_index=True, **more
    )  # fmt: skip


def stepper(label: str, numbers: Sequence[int], highest: int, key: str, help: str) -> int:
    """Draw a number with buttons to the previous and next one; other numbers lead to the next one in the list.

    Args:
        label: of the number.
        numbers: the rising numbers to choose from, at least one.
        highest: the largest number that the list may ever hold, since the widget's bounds must not change.
        key: of the number; it stands in the link.
        help: of the number.
    """
    in_link, last = st.query_params.get(key, ""), st.session_state.get(f"{key}_last")
    wanted = st.session_state.get(key, int(in_link) if in_link.isascii() and in_link.isdigit() else numbers[0])
    at = min(bisect_left(numbers, wanted), len(numbers) - 1)
    if numbers[at] != wanted and last is not None and wanted < last:
        at = max(0, at - 1)
    st.session_state[key] = st.session_state[f"{key}_last"] = numbers[at]

    def go(to: int) -> None:
        st.session_state[key] = numbers[to]

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button("◀ Previous", key=f"{key}_previous", disabled=at == 0, on_click=safely(go), args=(at - 1,))
        st.number_input(label, 0, highest, **linked(key, kept=True), help=help, width=150)
        st.button("Next ▶", key=f"{key}_next", disabled=at == len(numbers) - 1, on_click=safely(go), args=(at + 1,))
        st.caption(f"{at + 1:,} of {len(numbers):,}")
    return numbers[at]
