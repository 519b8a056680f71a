"""What does a number at one token depend on: which tokens before it raise it, and which lower it?"""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from analysis.attribution.provenance import AttributionView, ShownAttribution
from analysis.attribution.request import Attribution, UnitSegments, default_target
from analysis.uncertainty.scoring import ScoredText
from app.attribution import controls
from app.attribution.cards import cards, summary
from app.attribution.controls import Choice
from app.escape import escape_markdown
from app.run_query import QueryDisplay, run_or_get
from app.sidebar import SidebarInputs
from app.state import pinned
from app.styles import theme
from model.errors import MicroStepError


def target(choice: Choice, scored: ScoredText, segments: UnitSegments) -> int:
    """The pinned token; where none is, the most open one of the first."""
    at, encoded = pinned(), scored.encoded
    if at is not None:
        for i, (start, end) in enumerate(zip(encoded.source_start.tolist(), encoded.source_end.tolist(), strict=True)):
            if start <= at < end:
                return i
    return default_target(scored, choice.quantity, segments)


def results(choice: Choice, scored: ScoredText, segments: UnitSegments, inputs: SidebarInputs) -> None:
    """Everything below the controls."""
    request = choice.request(target(choice, scored, segments))
    run = QueryDisplay[Attribution]("attributing", lambda load, told: request.run(load, told, segments))
    found = run_or_get(request, run)
    if found is None:
        return
    shown = ShownAttribution(request, found, AttributionView(request.moved or "tokens"), choice.segments(), segments)
    unit = controls.unit(shown.units)
    shown = replace(shown, view=AttributionView(unit, inputs.unit, theme()))
    summary(shown)
    cards(shown)


inputs: SidebarInputs = st.session_state["inputs"]
st.title("Attribution", anchor=False)
st.caption("What a number at one token depends on: the tokens before it that raise it, and those that lower it.")
asked = controls.controls(inputs)
if asked.problem:
    st.error(escape_markdown(asked.problem))
elif asked.choice is None:
    st.info(escape_markdown(asked.hint))
else:
    scored = run_or_get(asked.choice.scores())
    segments = run_or_get(asked.choice.segments(), QueryDisplay("cutting")) if scored is not None else None
    if scored is not None and segments is not None:
        try:
            results(asked.choice, scored, segments, inputs)
        except MicroStepError as error:
            st.error(escape_markdown(str(error)))
