"""What does a number at one token depend on: which tokens before it raise it, and which lower it?"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from analysis.attribution.provenance import AttributionView, Shown
from analysis.attribution.request import Attribution, Segments, default_target
from analysis.uncertainty.scoring import ScoredText
from app.attribution import controls
from app.attribution.cards import cards, summary
from app.attribution.controls import Choice
from app.escape import plain
from app.run_query import Way, answer
from app.sidebar import Inputs
from app.state import pinned
from app.styles import theme
from model.errors import MicroStepError


def target(choice: Choice, scored: ScoredText, segments: Segments) -> int:
    """The pinned token; where none is, the most open one of the first."""
    at, encoded = pinned(), scored.encoded
    if at is not None:
        for i, (start, end) in enumerate(zip(encoded.source_start.tolist(), encoded.source_end.tolist(), strict=True)):
            if start <= at < end:
                return i
    return default_target(scored, choice.quantity, segments)


def results(choice: Choice, scored: ScoredText, segments: Segments, inputs: Inputs) -> None:
    """Everything below the controls."""
    request = choice.request(target(choice, scored, segments))
    run = Way[Attribution]("attributing", lambda load, told: request.run(load, told, segments))
    found = answer(request, run)
    if found is None:
        return
    shown = Shown(request, found, AttributionView(request.moved or "tokens"), choice.segments(), segments)
    unit = controls.unit(shown.units)
    shown = replace(shown, view=AttributionView(unit, inputs.unit, theme()))
    summary(shown)
    cards(shown)


inputs: Inputs = st.session_state["inputs"]
st.title("Attribution", anchor=False)
st.caption("What a number at one token depends on: the tokens before it that raise it, and those that lower it.")
asked = controls.controls(inputs)
if asked.problem:
    st.error(plain(asked.problem))
elif asked.choice is None:
    st.info(plain(asked.hint))
else:
    scored = answer(asked.choice.scores())
    segments = answer(asked.choice.segments(), Way("cutting")) if scored is not None else None
    if scored is not None and segments is not None:
        try:
            results(asked.choice, scored, segments, inputs)
        except MicroStepError as error:
            st.error(plain(str(error)))
