"""Widgets that pages share. Their values stand in the link, and fall back where a link or a model no longer fits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from analysis.discovery import Found
from app.access.settings import SHIPPED, Kind, settings
from app.error_net import safely
from app.escape import escape_markdown
from app.links import held, linked, settle
from model.scoring.scores import Sampling

Option = TypeVar("Option")
LARGEST = 10**9  # of a whole number without an end of its own; a browser's numbers are exact up to 9 * 10**15
ROOT = Path(__file__).resolve().parents[1]  # of the project, or of the installed package


def whole(label: str, low: int, high: int | None, first: int, key: str, **more: Any) -> int:
    """Draw a box for a whole number, and read it; a number out of range from a link or another model is moved in."""
    _within(key, low, high, first, more.pop("formerly", ""))
    return int(st.number_input(label, low, high, step=1, key=key, **more))


def decimal(label: str, low: float, high: float, first: float, step: float, key: str, **more: Any) -> float:
    """Draw a box for a decimal number, and read it."""
    _within(key, low, high, first)
    return float(st.number_input(label, low, high, step=step, key=key, **more))


def slider(label: str, low: float, high: float, first: float, step: float, key: str, **more: Any) -> float:
    """Draw a slider, and read it."""
    _within(key, low, high, first)
    return float(st.slider(label, low, high, step=step, key=key, **more))


def _within(key: str, low: float, high: float | None, first: float, formerly: str = "") -> None:
    value = held(key, first, formerly=formerly)
    value = first if value is None else value
    settle(key, max(low, min(value, LARGEST if high is None else high)))


def segmented(label: str, options: Sequence[Option], key: str, first: Option, **more: Any) -> Option:
    """Draw a few options side by side, and read the choice; one that is no longer offered falls back to the first."""
    return _choice(st.segmented_control, label, options, key, first, required=True, **more)


def selected(label: str, options: Sequence[Option], key: str, first: Option, **more: Any) -> Option:
    """Draw a list of options, and read the choice, as `segmented`."""
    return _choice(st.selectbox, label, options, key, first, **more)


def pills(label: str, options: Sequence[Option], key: str, first: Option, **more: Any) -> Option:
    """Draw options that take several lines, and read the choice, as `segmented`."""
    return _choice(st.pills, label, options, key, first, required=True, **more)


def _choice(
    draw: Callable[..., Any], label: str, options: Sequence[Option], key: str, first: Option, **more: Any
) -> Option:
    first = option_of(key, options, first, more.get("format_func", str), more.pop("formerly", ""))
    choice: Option | None = draw(label, options, key=key, **more)
    return first if choice is None else choice


def option_of(
    key: str, options: Sequence[Option], first: Option, labelled: Callable[[Option], str] = str, formerly: str = ""
) -> Option:
    """The choice among options, for a page that needs it before the widget is drawn.

    A link names an option by its name; links of earlier versions name it by its label.
    """
    first = first if first in options else options[0]
    named = {labelled(option): option for option in options} | {str(option): option for option in options}

    def read(words: Sequence[str]) -> Option:
        if words[-1] not in named:
            raise ValueError("no option")
        return named[words[-1]]

    value: Option = held(key, first, read, formerly)
    if value not in options:
        settle(key, first)
        return first
    return value


def indexed_selectbox(label: str, options: Sequence[str], key: str, first: int = 0, **more: Any) -> int:
    """The index of the choice in a list that may change; the first option if the earlier choice is gone."""
    return list(options).index(selected(label, options, key, options[first], **more))


def sampling_inputs() -> Sampling:
    """Draw temperature, top-p and seed, and read them."""
    temperature = decimal(
        "Temperature", 0.0, 5.0, 0.0, 0.1, "temperature",
        help="0 is greedy. All scores and probabilities shown are the model's own, before the temperature.",
    )  # fmt: skip
    top_p = decimal("Top-p", 0.05, 1.0, 1.0, 0.05, "top_p")
    return Sampling(temperature, top_p, whole("Seed", 0, 2**31 - 1, 0, "seed"))


def folder_input(label: str, key: str, kind: Kind, usual: str, meaning: str) -> Path:
    """Draw a box for the path of a folder, and read it.

    Args:
        label: of the box.
        key: of the box.
        kind: of what the folder holds.
        usual: the folder that commands write to; a first visit opens it if it is there, or else the one that comes
            with the project. On a server, it opens the first folder that is offered.
        meaning: what the folder holds.

    Raises:
        TextError: this server does not offer the folder.
    """
    roots = settings().roots(kind)
    first, help = usual if Path(usual).is_dir() else SHIPPED[kind], f"{meaning} A relative path starts in the folder "
    help += "where the app was started."
    if roots is not None:
        first = roots.roots[0].name
        help = f"{meaning} This server offers {escape_markdown(roots.names)}, and the folders below, as NAME/FOLDER."
    typed = st.text_input(label, **linked(key, first), help=help)
    return settings().folder(kind, str(typed))


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
    wanted: list[str] | None = held(key, None, lambda words: [word for word in words if word])
    existing = [name for name in wanted or () if name in names][:limit]
    if wanted is None or existing != wanted:
        gone = [name for name in wanted or () if name not in names]
        if gone and len(gone) < 10:
            st.info(escape_markdown(f"Not in this folder: {', '.join(gone)}."))
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
    wanted, last = held(key, numbers[0]), st.session_state.get(f"{key}_last")
    wanted = numbers[0] if wanted is None else wanted
    at = min(bisect_left(numbers, wanted), len(numbers) - 1)
    if numbers[at] != wanted and last is not None and wanted < last:
        at = max(0, at - 1)
    settle(key, numbers[at])
    st.session_state[f"{key}_last"] = numbers[at]

    def go(to: int) -> None:
        st.session_state[key] = numbers[to]

    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.button(
            "Previous",
            icon=":material/chevron_left:",
            key=f"{key}_previous",
            disabled=at == 0,
            on_click=safely(go),
            args=(at - 1,),
        )
        st.number_input(label, 0, highest, key=key, help=help, width=150)
        st.button(
            "Next",
            icon=":material/chevron_right:",
            key=f"{key}_next",
            disabled=at == len(numbers) - 1,
            on_click=safely(go),
            args=(at + 1,),
        )
        st.caption(f"{at + 1:,} of {len(numbers):,}")
    return numbers[at]
