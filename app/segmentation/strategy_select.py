"""The choice of one strategy and M, which the attention and attribution pages share."""

from __future__ import annotations

import streamlit as st

from analysis.segmentation.strategy import Segmenter, Strategy
from app.escape import escape_markdown
from app.links import held, settle
from app.sidebar import SidebarInputs
from app.widgets import whole
from model.errors import MicroStepError
from model.hub.model_info import MicroStepInfo
from model.hub.wrap_base import micro_step_info
from model.segmentation.segment import MAX_LENGTH, RULES

CUT_BY, WORD = "cut_by", "word"
HIGHEST_CAP = 64  # of M


def usable_rules(*saved: MicroStepInfo | None) -> list[str]:
    """The rules that all of these models can be asked for: one needs a trained micro_step model."""
    trained = bool(saved) and all(info is not None and not info.untrained for info in saved)
    return [name for name, rule in RULES.items() if trained or "micro_step" not in rule.needs]


def cap_input(key: str, **more: str) -> int:
    """Draw the longest segment M, and read it, in tokens."""
    return whole("Longest segment, M", 1, HIGHEST_CAP, MAX_LENGTH, key, width=170, **more)


def segmenter(inputs: SidebarInputs, purpose: str) -> Segmenter:
    """Draw the strategy that segments the text and the longest segment M, and read both.

    Args:
        inputs: the sidebar's.
        purpose: what the segments are for; the help begins with it.
    """
    models = [micro_step_info(spec.name) for spec in (inputs.a, inputs.b) if spec is not None]
    names = {name for info in models for name in usable_rules(info)}
    options = ["word", *(name for name in RULES if name != "word" and name in names)]
    known, typed = [str(Strategy.of(name)) for name in options], str(held(CUT_BY, WORD))
    try:
        Strategy.parse(typed)
    except MicroStepError as error:
        st.warning(escape_markdown(f"“{typed}” cannot be used: {error}. Segments are words.", longest=600))
        settle(CUT_BY, typed := WORD)
    strategy = st.selectbox(
        "Segments", known if typed in known else [*known, typed], accept_new_options=True, width=280, key=CUT_BY,
        help=f"{purpose} Choose a strategy, or type one such as entropy:threshold=1.2 (in nats). **word** needs no "
        "scores.",
    )  # fmt: skip
    cap = cap_input("cap", help="No segment is longer, in tokens; nor is one longer than a micro_step model's own M.")
    return Segmenter(Strategy.parse(str(strategy or WORD)), cap)
