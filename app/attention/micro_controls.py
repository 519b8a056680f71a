"""The controls of the micro view: the model, its segments, and what of them is shown."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import streamlit as st

from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.result import MicroAttention
from analysis.generation.request import beginning, prompt_of
from analysis.generation.result import Decoding
from analysis.segmentation.strategy import Strategy
from app.error_net import safely
from app.segmentation.strategy_select import usable_rules
from app.sidebar import SidebarInputs
from app.state import pin, pinned
from app.submission import current
from app.widgets import decimal, option_of, segmented, selected, slider, whole
from model.hub.loading import ModelSpec
from model.hub.model_info import MicroStepInfo
from model.hub.wrap_base import MAX_SEGMENT, micro_step_info
from model.segmentation.segment import MAX_LENGTH, RULES, Parameter
from model.text.document import TextInput

SIDE, CUT, RULE, MOST = "micro_model", "micro_cut", "micro_rule", "micro_most"
SHOW, LAYER, FORMER_LAYER, SEGMENT = "micro_show", "layer_of_micro", "micro_layer", "segment"
MEAN, ONE = "mean over the text", "one segment"
Source = Literal["training", "strategy", "written"]
CUTS: dict[Source, str] = {"training": "as in training", "strategy": "by a strategy", "written": "as it writes"}
MOST_TOKENS = 400  # in an answer


@dataclass(frozen=True)
class MicroSelection:
    """The micro layer and the segment that are shown."""

    layer: int  # from 0
    segment: int | None  # from 0, counting segments of two tokens and more; None: the mean over the text


def controls(inputs: SidebarInputs, a: ModelSpec, b: ModelSpec, text: TextInput) -> MicroRequest:
    """Draw the controls of a run, and read them.

    Raises:
        MicroStepError: a parameter does not exist, or the text has no prompt to answer.
    """
    side = segmented("Model", ["A", "B"], SIDE, _first(a, b), label_visibility="collapsed", width="content")
    spec = a if side == "A" else b
    saved = micro_step_info(spec.name)
    with st.popover("Options", help="How the text is segmented.", width="content"):
        st.caption("A model that is not a micro\\_step model is wrapped in untrained modules.")
        cut = segmented(
            "Segments", list(CUTS), CUT, "training", format_func=CUTS.__getitem__,
            help="**as in training**: by the strategy of the model's recipe. If the recipe has a target length, the "
            "threshold is solved on this text. **by a strategy** of your choice. **as it writes**: the model answers "
            "the text, and the segments of its answer are shown.",
        )  # fmt: skip
        cap = _cap(saved)
        strategy, written = None, None
        if cut == "strategy":
            strategy = _strategy(saved)
        elif cut == "written":
            written = _decoding(cap)
            if current().source == "example":
                text = replace(text, document=beginning(text.document))
            text = replace(text, document=prompt_of(text.document))
    return MicroRequest(spec, text, strategy, written, cap, side=side)


def selection(result: MicroAttention) -> MicroSelection:
    """Draw the choice of layer and segment, and read it. A chosen segment stands in the URL."""
    chosen, count = chosen_segment(result), len(result.first)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        layer = segmented(
            "Micro layer", list(range(result.layers)), LAYER, 0, formerly=FORMER_LAYER,
            help="A layer of the micro decoder, counted from 0 at the bottom.",
        )  # fmt: skip
        which = st.segmented_control(
            "Weights", [MEAN, ONE], default=MEAN if chosen is None else ONE, key=_mirror(chosen is None),
            required=True, on_change=safely(pin), args=(1 if chosen is None else None, SEGMENT),
            help="A click on a segment below chooses it.",
        )  # fmt: skip
        number, one = 1 if chosen is None else chosen + 1, which == ONE
        st.button(
            "Previous", disabled=not one or number == 1, on_click=safely(pin), args=(number - 1, SEGMENT),
            key="micro_previous",
        )  # fmt: skip
        st.button(
            "Next", disabled=not one or number >= count, on_click=safely(pin), args=(number + 1, SEGMENT),
            key="micro_next",
        )  # fmt: skip
    return MicroSelection(layer, chosen)


def chosen_layer(result: MicroAttention) -> int:
    """The micro layer that is shown, from 0."""
    return option_of(LAYER, range(result.layers), 0, formerly=FORMER_LAYER)


def chosen_segment(result: MicroAttention) -> int | None:
    """The segment that the URL names, from 0; None without one."""
    number = pinned(SEGMENT)
    return number - 1 if number is not None and 1 <= number <= len(result.first) else None


def _mirror(mean: bool) -> str:
    """A key for each state, so that the widget follows a click in the strip."""
    return f"{SHOW}_{'mean' if mean else 'one'}"


def _first(a: ModelSpec, b: ModelSpec) -> str:
    """The side that a first visit shows: the one that is a micro_step model."""
    return "A" if micro_step_info(a.name) is not None and micro_step_info(b.name) is None else "B"


def _cap(saved: MicroStepInfo | None) -> int:
    """Draw the longest segment M, and read it, in tokens."""
    longest = saved.max_segment_length if saved is not None else MAX_SEGMENT
    return whole(
        "Longest segment, M", 2, max(2, longest), min(MAX_LENGTH, longest), MOST, width=190,
        help=f"No segment has more tokens. This model can write up to {longest}.",
    )  # fmt: skip


def _strategy(saved: MicroStepInfo | None) -> Strategy:
    """Draw a rule and its parameters, and read them; entropies in nats."""
    names = usable_rules(saved)
    name = selected("Strategy", names, RULE, "confidence", width=220, format_func=lambda each: RULES[each].title)
    return Strategy.of(name, {each.name: _parameter(name, each) for each in RULES[name].parameters})


def _parameter(rule: str, parameter: Parameter) -> float:
    label, key = f"{parameter.name}, {parameter.unit}", f"micro_{rule}_{parameter.name}"
    if parameter.integer:
        return whole(
            label, int(parameter.low), int(parameter.high), int(parameter.default), key, width=160,
            help=parameter.meaning,
        )  # fmt: skip
    return decimal(
        label, parameter.low, parameter.high, parameter.default, parameter.step, key, width=160, help=parameter.meaning
    )


def _decoding(cap: int) -> Decoding:
    """Draw how the answer is decoded, and read it."""
    tau = slider(
        "tau", 0.0, 1.0, 0.5, 0.05, "micro_tau", width=180,
        help="How confident the micro decoder must be to continue the segment.",
    )  # fmt: skip
    new_tokens = whole("New tokens", 2, MOST_TOKENS, 60, "micro_new", width=120)
    return Decoding(tau=tau, max_segment_length=cap, max_new_tokens=new_tokens)
