"""The controls of the generation page: whose model answers, and how. Widgets in, plain values out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import streamlit as st

from analysis.generation.provenance import Over
from analysis.generation.request import FIRST_WORDS, beginning
from analysis.generation.result import Decoding
from analysis.generation.sweep import TAUS
from app import state
from app.escape import escape_markdown
from app.widgets import default, segmented
from model.decoding.stopping import RULES
from model.hub.loading import ModelSpec
from model.hub.model_info import MicroStepInfo
from model.hub.wrap_base import LONGEST, micro_step_info
from model.scoring.continuation import Sampling
from model.text.document import TextInput

MODEL, DECODING, RULE, TAU, MOST = "writer", "decoding", "rule", "tau", "most"
PROMPT, BEGINNING, WHOLE = "prompt", "first words", "whole text"
UNTRAINED_TAU = 0.3  # where untrained modules sometimes go on
TRAINED_TAU = 0.8


@dataclass(frozen=True)
class GenerationControls:
    """What the page's controls say."""

    side: str  # A or B
    spec: ModelSpec
    saved: MicroStepInfo | None  # None: the model is a base, and gets untrained modules
    how: Decoding
    prompt: TextInput | None


def controls(a: ModelSpec, b: ModelSpec, text: TextInput | None) -> GenerationControls:
    """Draw the controls and read them. What the model cannot do is not offered.

    Raises:
        MicroStepError: sampling values that do not go together.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        side = segmented(
            "Model", ["A", "B"], MODEL, "B",
            help="Of the two in the sidebar. A micro\\_step model answers as it was trained; around any other model "
            "stand untrained modules.",
        )  # fmt: skip
        spec = a if side == "A" else b
        saved = micro_step_info(spec.name)
        decoding = segmented(
            "Decoding", ["merged", "lossless"], DECODING, saved.decoding if saved else "merged",
            help="**merged**: each segment becomes one macro step of the base, and the answer may differ from the "
            "base's.  \n**lossless**: the base checks every draft, and the answer is the base's own.",
        )  # fmt: skip
        names = [name for name, rule in RULES.items() if saved is None or saved.stop_head or not rule.needs_stop_head]
        rule = segmented(
            "Rule", names, RULE, "confidence",
            help="When the micro decoder hands back to the base.  \n"
            + "  \n".join(f"**{escape_markdown(name)}**: {RULES[name].meaning}" for name in names),
        )  # fmt: skip
        prompt = _prompt(text)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        default(TAU, TRAINED_TAU if saved else UNTRAINED_TAU)
        tau = st.slider(
            "tau", 0.0, 1.05, step=0.05, key=TAU, bind="query-params",
            help="How sure the micro decoder must be to go on. Above 1 it never is: the base alone writes.",
        )  # fmt: skip
        longest = saved.max_segment_length if saved else LONGEST
        if st.session_state.get(MOST, 1) > longest:
            st.session_state[MOST] = longest
        most = st.number_input(
            "M, tokens a segment", 1, longest, min(4, longest), key=MOST, bind="query-params",
            help=f"The most tokens of a segment; this model writes up to {longest}.",
        )  # fmt: skip
        new = st.number_input("New tokens", 1, 2000, 60, key="new_tokens", bind="query-params")
        sampling, penalty = _sampling()
    how = Decoding(rule, float(tau), int(most), decoding == "lossless", int(new), sampling, penalty)
    return GenerationControls(side, spec, saved, how, prompt)


def _prompt(text: TextInput | None) -> TextInput | None:
    """The part of the sidebar's text that is answered; of a conversation everything up to an answer."""
    if text is None or len(text.document.messages) > 1:
        return text
    example = st.session_state.get(state.SOURCE, "example") == "example"
    part = segmented(
        "Prompt", [BEGINNING, WHOLE], PROMPT, BEGINNING if example else WHOLE,
        help=f"The sidebar's text, or its first {FIRST_WORDS} words, which leaves something to be written.",
    )  # fmt: skip
    return replace(text, document=beginning(text.document)) if part == BEGINNING else text


def _sampling() -> tuple[Sampling, float]:
    """Rarely changed, so that they stand in a box of their own."""
    with st.popover("Sampling"):
        temperature = st.number_input(
            "Temperature", 0.0, 5.0, 0.0, 0.1, key="temperature", bind="query-params",
            help="0 is greedy. Probabilities are always those before the temperature.",
        )  # fmt: skip
        top_p = st.number_input("Top-p", 0.05, 1.0, 1.0, 0.05, key="top_p", bind="query-params")
        seed = st.number_input("Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params")
        penalty = st.number_input(
            "Repetition penalty", 0.5, 3.0, 1.0, 0.05, key="penalty", bind="query-params",
            help="Divides the scores of tokens that came before; 1 is none. The base has the same.",
        )  # fmt: skip
    return Sampling(float(temperature), float(top_p), int(seed)), float(penalty)


def timeline_over() -> Over:
    """What the timeline runs over."""
    return "passes" if segmented("Timeline over", ["time", "base passes"], "over", "time") != "time" else "time"


def taus() -> str:
    """The values of a sweep, as they are typed."""
    return st.text_input(
        "Values of tau", " ".join(f"{tau:g}" for tau in TAUS), key="taus", bind="query-params",
        help="Up to 12 numbers; above 1 the base alone writes.",
    )  # fmt: skip
