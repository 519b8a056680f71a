"""Widgets that several pages share: they stand in links, and fall back where a link or a model took a choice away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import streamlit as st

from analysis.cutting.strategy import Strategy
from app.controls import Inputs
from model.segmentation import MAX_LENGTH, RULES
from model.wrapping import described

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


def segments_of(inputs: Inputs, what_for: str) -> tuple[str, int]:
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


def _strategies(inputs: Inputs) -> list[str]:
    """Rules with their defaults, as words; the one that needs a trained micro_step model only where there is one."""
    specs = [spec for spec in (inputs.a, inputs.b) if spec is not None]
    trained = any(saved is not None and not saved.untrained for saved in (described(spec.name) for spec in specs))
    names = ["word", *(name for name in RULES if name != "word")]
    return [str(Strategy.of(name)) for name in names if trained or "micro_step" not in RULES[name].needs]
