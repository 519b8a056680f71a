"""The controls of the micro attention: whose model, which segments, and what of them is looked at."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import streamlit as st

from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.result import MicroAttention
from analysis.generation.request import beginning, prompt_of
from analysis.generation.result import Decoding
from analysis.segmentation.strategy import Strategy
from app import state
from app.error_net import safely
from app.sidebar import SidebarInputs
from app.state import pin, pinned
from app.widgets import segmented
from model.hub.loading import ModelSpec
from model.hub.model_info import MicroStepInfo
from model.hub.wrap_base import LONGEST, micro_step_info
from model.segmentation.segment import MAX_LENGTH, RULES, Parameter
from model.text.document import TextInput

SIDE, CUT, RULE, MOST = "micro_model", "micro_cut", "micro_rule", "micro_most"
SHOW, LAYER, SEGMENT = "micro_show", "micro_layer", "segment"
MEAN, ONE = "mean over the text", "one segment"
Source = Literal["training", "strategy", "written"]
CUTS: dict[Source, str] = {"training": "as in training", "strategy": "by a strategy", "written": "as it writes"}
MOST_TOKENS = 400  # of an answer


@dataclass(frozen=True)
class MicroSelection:
    """What of a micro attention is looked at."""

    layer: int  # from 0
    segment: int | None  # of those with two tokens and more, from 0; None: the mean over the text


def controls(inputs: SidebarInputs, a: ModelSpec, b: ModelSpec, text: TextInput) -> MicroRequest:
    """Draw the controls of a run and read them.

    Raises:
        MicroStepError: parameters that do not exist, or a text without a prompt that is to be answered.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        side = segmented(
            "Model", ["A", "B"], SIDE, _first(a, b),
            help="Of the two in the sidebar. Around a model that is no micro\\_step model stand untrained modules.",
        )  # fmt: skip
        spec = a if side == "A" else b
        saved = micro_step_info(spec.name)
        cut = segmented(
            "Segments", list(CUTS), CUT, "training", format_func=CUTS.__getitem__,
            help="**as in training**: by the strategy of the model's recipe; where it aims at a mean length, its "
            "threshold is solved on this text. **by a strategy** of your choice. **as it writes**: the model answers "
            "the text, and its own segments are taken.",
        )  # fmt: skip
        most = _most(saved)
        strategy, written = None, None
        if cut == "strategy":
            strategy = _strategy(saved)
        elif cut == "written":
            written = _decoding(most)
            if st.session_state.get(state.SOURCE, "example") == "example":
                text = replace(text, document=beginning(text.document))
            text = replace(text, document=prompt_of(text.document))
    return MicroRequest(spec, text, strategy, written, most, side=side)


def looked_at(found: MicroAttention) -> MicroSelection:
    """Draw the controls of what is shown, and read them. A chosen segment stands in the URL."""
    chosen, count = chosen_segment(found), len(found.first)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layers = list(range(1, found.layers + 1))
        layer = segmented("Micro layer", layers, LAYER, 1, help="Of the micro decoder, from below.")
        which = st.segmented_control(
            "Weights of", [MEAN, ONE], default=MEAN if chosen is None else ONE, key=_mirror(chosen is None),
            required=True, on_change=safely(pin), args=(1 if chosen is None else None, SEGMENT),
            help="A click on a segment below chooses it.",
        )  # fmt: skip
        at = 0 if chosen is None else chosen
        one = which == ONE
        st.button(
            "Previous", disabled=not one or at == 0, on_click=safely(pin), args=(at, SEGMENT), key="micro_previous"
        )
        st.button(
            "Next", disabled=not one or at + 1 >= count, on_click=safely(pin), args=(at + 2, SEGMENT), key="micro_next"
        )
    return MicroSelection(int(layer) - 1, chosen)


def chosen_segment(found: MicroAttention) -> int | None:
    """The segment of the URL, from 0; None where there is none."""
    number = pinned(SEGMENT)
    return number - 1 if number is not None and 1 <= number <= len(found.first) else None


def _mirror(mean: bool) -> str:
    """A key for each state, so that the box follows a click in the strip."""
    return f"{SHOW}_{'mean' if mean else 'one'}"


def _first(a: ModelSpec, b: ModelSpec) -> str:
    """The side that is shown first: the one that is a micro_step model."""
    return "A" if micro_step_info(a.name) is not None and micro_step_info(b.name) is None else "B"


def _most(saved: MicroStepInfo | None) -> int:
    longest = saved.max_segment_length if saved is not None else LONGEST
    if st.session_state.get(MOST, 2) > longest:
        st.session_state[MOST] = longest
    return int(
        st.number_input(
            "M, tokens a segment", 2, max(2, longest), min(MAX_LENGTH, longest), key=MOST, bind="query-params",
            width=190, help=f"The most tokens of a segment; this model writes up to {longest}.",
        )
    )  # fmt: skip


def _strategy(saved: MicroStepInfo | None) -> Strategy:
    """A rule and its parameters, entropies in nats."""
    trained = saved is not None and not saved.untrained
    names = [name for name, rule in RULES.items() if trained or "micro_step" not in rule.needs]
    if st.session_state.get(RULE, names[0]) not in names:
        st.session_state[RULE] = names[0]
    name = str(
        st.selectbox(
            "Strategy", names, names.index("confidence"), key=RULE, bind="query-params", width=220,
            format_func=lambda each: RULES[each].title,
        )
    )  # fmt: skip
    return Strategy.of(name, {each.name: _parameter(name, each) for each in RULES[name].parameters})


def _parameter(rule: str, parameter: Parameter) -> float:
    kind: type[int] | type[float] = int if parameter.integer else float
    low, high = (kind(x) if math.isfinite(x) else None for x in (parameter.low, parameter.high))
    return float(
        st.number_input(
            f"{parameter.name}, {parameter.unit}", low, high, kind(parameter.default),
            kind(1 if parameter.integer else parameter.step), key=f"micro_{rule}_{parameter.name}",
            bind="query-params", width=160, help=parameter.meaning,
        )
    )  # fmt: skip


def _decoding(most: int) -> Decoding:
    tau = st.slider(
        "tau", 0.0, 1.0, 0.5, 0.05, key="micro_tau", bind="query-params", width=180,
        help="How sure the micro decoder must be to go on.",
    )  # fmt: skip
    new = st.number_input(
        "New tokens", 2, MOST_TOKENS, 60, key="micro_new", bind="query-params", width=120,
    )  # fmt: skip
    return Decoding(tau=float(tau), max_segment_length=most, max_new_tokens=int(new))
