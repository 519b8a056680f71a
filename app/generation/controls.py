"""The controls of the generation page: which model answers, and how it decodes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import streamlit as st

from analysis.generation.recordings import RECORDINGS, Recording
from analysis.generation.request import FIRST_WORDS, GenerationRequest, beginning
from analysis.generation.result import Decoding
from analysis.generation.sweep import TAUS
from analysis.generation.view import Over
from app import state
from app.error_net import safely
from app.escape import escape_markdown
from app.generation.estimate import seconds_to_run
from app.links import linked
from app.submission import current
from app.widgets import decimal, sampling_inputs, segmented, slider, whole
from model.decoding.stopping import RULES
from model.hub.loading import ModelSpec
from model.hub.wrap_base import MAX_SEGMENT, micro_step_info
from model.text.document import TextInput

MODEL, DECODING, EPS, RULE, TAU, MOST = "writer", "decoding", "eps", "rule", "tau", "longest"
PROMPT, BEGINNING, WHOLE = "prompt_part", "first words", "whole text"
FILM, YOURS = "film", "Your run"
RUN_TEXT = "run_text"  # the key of Run at the top of the page
ASKED = "asked"  # in the session: the runs that the reader started
UNTRAINED_TAU = 0.3  # low enough for untrained modules to continue a segment sometimes
TRAINED_TAU = 0.8


@dataclass(frozen=True)
class GenerationControls:
    """What the reader chose: the model, how it decodes, and the prompt."""

    side: str  # "A" or "B"
    spec: ModelSpec
    decoding: Decoding
    prompt: TextInput | None


def controls(a: ModelSpec, b: ModelSpec, text: TextInput | None) -> GenerationControls:
    """Draw the settings of a run, folded, and read them. They offer only what the model can do.

    Raises:
        MicroStepError: the sampling values do not go together.
    """
    with st.popover("Settings"):
        return _settings(a, b, text)


def _settings(a: ModelSpec, b: ModelSpec, text: TextInput | None) -> GenerationControls:
    side = segmented(
        "Model", ["A", "B"], MODEL, "B",
        help="One of the two at the top. A micro\\_step model decodes as it was trained; any other model is wrapped in "
        "untrained modules.",
    )  # fmt: skip
    spec = a if side == "A" else b
    saved = micro_step_info(spec.name)
    decoding = segmented(
        "Decoding", ["merged", "lossless"], DECODING, saved.decoding if saved else "merged",
        help="**merged**: each segment becomes one macro step of the base model, so the answer may differ from the "
        "base's.  \n**lossless**: the base model checks every draft, so the answer is the base's own.",
    )  # fmt: skip
    eps = 1.0
    if decoding == "lossless":
        eps = slider(
            "eps of the check", 0.05, 1.0, 1.0, 0.05, EPS,
            help="At 1 the check is lossless. Below 1 it is relaxed: the base also keeps a drafted token that it gives "
            "at least this share of its likeliest token's probability, so the answer is no longer the base's own. The "
            "page then shows the nll ratio: the nats per token that the base gives the answer, divided by those of its "
            "own answer to the same prompt.",
        )  # fmt: skip
    names = [name for name, rule in RULES.items() if saved is None or saved.stop_head or not rule.needs_stop_head]
    rule = segmented(
        "Rule", names, RULE, "confidence",
        help="When the micro decoder stops and the base model runs again.  \n"
        + "  \n".join(f"**{escape_markdown(name)}**: {RULES[name].meaning}" for name in names),
    )  # fmt: skip
    prompt = _prompt(text)
    tau = slider(
        "tau of the run", 0.0, 1.05, TRAINED_TAU if saved else UNTRAINED_TAU, 0.05, TAU,
        help="How confident the micro decoder must be to continue the segment. Above 1 it never is, so the base alone "
        "writes.",
    )  # fmt: skip
    longest = saved.max_segment_length if saved else MAX_SEGMENT
    cap = whole(
        "Longest segment, M", 1, longest, min(4, longest), MOST, formerly="most",
        help=f"No segment has more tokens. This model can write up to {longest}.",
    )  # fmt: skip
    new_tokens = whole("New tokens", 1, 2000, 60, "new_tokens")
    st.markdown("**Sampling**")
    sampling = sampling_inputs()
    penalty = decimal(
        "Repetition penalty", 0.5, 3.0, 1.0, 0.05, "penalty",
        help="Divides the scores of tokens that occurred before; 1 means none. The base uses the same.",
    )  # fmt: skip
    return GenerationControls(
        side, spec, Decoding(rule, tau, cap, decoding == "lossless", new_tokens, sampling, penalty, eps), prompt
    )


def _prompt(text: TextInput | None) -> TextInput | None:
    """The part of the submitted text that is the prompt; of a conversation, all of it."""
    if text is None or len(text.document.messages) > 1:
        return text
    example = current().source == "example"
    part = segmented(
        "Prompt", [BEGINNING, WHOLE], PROMPT, BEGINNING if example else WHOLE, formerly="prompt",
        help=f"The text at the top, or its first {FIRST_WORDS} words so that there is something left to write.",
    )  # fmt: skip
    return replace(text, document=beginning(text.document)) if part == BEGINNING else text


def choose_film() -> Recording | None:
    """Draw the choice between the recordings and the reader's own run, and read it; None: their own."""
    titles = {each.title: each for each in RECORDINGS.values()}
    if st.session_state.get(RUN_TEXT):
        st.session_state[FILM] = YOURS
    return titles.get(segmented("Film", [*titles, YOURS], FILM, next(iter(titles)), label_visibility="collapsed"))


def run_button(request: GenerationRequest) -> bool:
    """Draw Run with how long it takes, and return whether this run was asked for: here, or with Run at the top."""
    asked: set[GenerationRequest] = st.session_state.setdefault(ASKED, set())

    def start() -> None:
        asked.add(request)
        st.session_state.setdefault(state.ACCEPTED, set()).add(request)  # its time was told
        st.session_state.get(state.STOPPED, set()).discard(request)

    def start_here() -> None:
        start()
        st.session_state[FILM] = YOURS

    if st.session_state.get(RUN_TEXT):
        start()
    seconds = seconds_to_run(request)
    does = f"{request.model.name} answers the text at the top at tau {request.how.tau:g}, then its base does."
    st.button("Run this text", on_click=safely(start_here), key="run_generation", help=escape_markdown(does))
    st.caption(
        "time unknown before a first run" if seconds is None else f"about {seconds} (an estimate)", width="content"
    )
    return request in asked


def timeline_over() -> Over:
    """Draw the choice of the timeline's axis, and read it."""
    return "passes" if segmented("Timeline over", ["time", "base passes"], "over", "time") != "time" else "time"


def epsilons() -> str:
    """Draw the box for the values of eps of a sweep whose drafts are checked, and return what is typed."""
    typed: str = st.text_input(
        "Values of eps", **linked("epsilons", "1 0.5"),
        help="At 1 the check of drafts is lossless, below it is relaxed. Each is tried with each tau, 12 runs in all.",
    )  # fmt: skip
    return typed


def taus() -> str:
    """Draw the box for the values of a sweep, and return what is typed."""
    typed: str = st.text_input(
        "Values of tau", **linked("taus", " ".join(f"{tau:g}" for tau in TAUS)),
        help="Up to 12 numbers. Above 1 the base alone writes.",
    )  # fmt: skip
    return typed
