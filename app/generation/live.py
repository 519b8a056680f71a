"""An answer while it is written: its segments as they come, live counts, and the base's answer beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from analysis.figures.figure import safe
from analysis.figures.theme import CARD, INK, SEQUENTIAL_DARK, SEQUENTIAL_LIGHT
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Answer, Generation
from analysis.generation.run import GenerationRun
from analysis.query import ModelLoader
from analysis.score_registry import significant
from analysis.view import Theme
from app.run_query import REDRAW_SECONDS
from model.causal_lm.forward import Progress

PARTIAL = "partial"  # in the session: what is left of the last run
SECONDS_TO_END = 10.0  # that a stopped run gets for it: Streamlit starts the next run of the page beside it
MIDDLE = 125  # brightness of 255 from which a ground takes dark ink
SHOWN = 300  # tokens of each answer, the last ones


class Live:
    """Draws a run into a place of the page, at most every REDRAW_SECONDS. Nothing around it moves."""

    def __init__(self, place: st.delta_generator.DeltaGenerator, theme: Theme) -> None:
        self.theme, self.drawn = theme, 0.0
        self.run: GenerationRun | None = None
        with place.container(border=True, key="card_live"):
            columns = st.columns(2)
            for column, title in zip(columns, ("The answer", "The base alone"), strict=True):
                column.markdown(f"**{title}**")
            self.texts = [column.empty() for column in columns]
            self.counts = [column.empty() for column in columns]
        for text, count in zip(self.texts, self.counts, strict=True):
            text.html(_frame(""))
            count.caption("waits")

    def __call__(self, run: GenerationRun) -> None:
        """Draw what there is; Streamlit ends the run here when the reader stops it."""
        self.run = run
        now = time.monotonic()
        if now - self.drawn < REDRAW_SECONDS:
            return
        self.drawn = now
        found = run.so_far()
        self.texts[0].html(_frame(_spans(found.micro, found.segments.starts, self.theme)))
        self.counts[0].caption(_counts(found))
        if found.base is not None:
            self.texts[1].html(_frame(_spans(found.base, None, self.theme)))
            self.counts[1].caption(f"{len(found.base)} tokens, {_speed(found.base)}")


class PartialRun:
    """What is left of a run that was stopped. Filled where the run ends, read where the next one begins."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.found: Generation | None = None
        self.ended = threading.Event()


def watched(
    request: GenerationRequest, place: st.delta_generator.DeltaGenerator, theme: Theme
) -> Callable[[ModelLoader, Progress], Generation]:
    """The request's run, drawn into a place; where it is stopped, what was written is kept in the session."""

    def run(load: ModelLoader, progress: Progress) -> Generation:
        live, kept = Live(place, theme), PartialRun(request)
        st.session_state[PARTIAL] = kept
        try:
            found = request.run(load, progress, live)
        except Exception:
            place.empty()
            raise
        except BaseException:  # Streamlit's own, at a redraw; from here on any call of it raises again
            if live.run is not None:
                kept.found = live.run.stopped()
            raise
        finally:
            kept.ended.set()
        place.empty()
        return found

    return run


def partial(request: GenerationRequest) -> Generation | None:
    """What was written of a request before it was stopped."""
    kept: PartialRun | None = st.session_state.get(PARTIAL)
    if kept is None or kept.request != request or not kept.ended.wait(SECONDS_TO_END):
        return None
    return kept.found if kept.found is not None and len(kept.found.micro) else None


def _counts(found: Generation) -> str:
    steps = f"{found.macro_steps} macro and {found.micro_steps} micro steps"
    per = significant(found.tokens_per_macro_step)
    return f"{len(found.micro)} tokens, {steps}, {per} tokens per macro step, {_speed(found.micro)}"


def _speed(answer: Answer) -> str:
    return f"{significant(answer.tokens_per_second)} tokens/s"


def _frame(inside: str) -> str:
    return f"<div class='live'><div>{inside}</div></div>"


def _spans(answer: Answer, starts: NDArray[np.int32] | None, theme: Theme) -> str:
    """Each token on its shade, escaped by `safe`; a gap before each segment."""
    begins = set(range(len(answer)) if starts is None else starts.tolist())
    display, spans = answer.display, []
    for i in range(max(0, len(answer) - SHOWN), len(answer)):
        p = float(answer.probability[i])
        gap = "begins" if i in begins and starts is not None else "goes-on"
        style = _style(0.0 if np.isnan(p) else 1 - p, theme)
        spans.append(f"<span class='{gap}' style='{style}'>{safe(display[i])}</span>")
    return "".join(spans)


def _style(shade: float, theme: Theme) -> str:
    """Ground and ink of a shade, 0 to 1, on the sequential scale."""
    ramp = SEQUENTIAL_LIGHT if theme == "light" else SEQUENTIAL_DARK
    stops = np.linspace(0, 1, len(ramp))
    ground = [round(float(np.interp(shade, stops, part))) for part in zip(*ramp, strict=True)]
    bright = 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2] > MIDDLE
    ink = (INK if bright == (theme == "light") else CARD)[theme]
    return f"background:rgb({','.join(map(str, ground))});color:{ink}"
