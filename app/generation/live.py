"""Shows an answer while it is written: its segments, live counts, and the base's answer beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from analysis.figures.figure import safe
from analysis.figures.theme import CARD, INK, SEQUENTIAL
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Answer, Generation
from analysis.query import ModelLoader
from analysis.score_registry import significant
from analysis.view import Theme
from app.run_query import REDRAW_SECONDS
from model.progress import Progress

if TYPE_CHECKING:
    from analysis.generation.run import GenerationRun

PARTIAL = "partial"  # in the session: the result of the last run that was stopped
SECONDS_TO_END = 10.0  # how long to wait for a stopped run: Streamlit starts the next run of the page at once
MIDDLE = 125  # backgrounds of this brightness (of 255) and more get dark text
SHOWN = 300  # the last tokens of each answer


class Live:
    """Draws a run into one place of the page, at most every REDRAW_SECONDS."""

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
            count.caption("waiting")

    def __call__(self, run: GenerationRun) -> None:
        """Draw what is written so far. When the reader stops the run, Streamlit ends it here."""
        self.run = run
        now = time.monotonic()
        if now - self.drawn < REDRAW_SECONDS:
            return
        self.drawn = now
        generation = run.so_far()
        self.texts[0].html(_frame(_spans(generation.micro, generation.segments.starts, self.theme)))
        self.counts[0].caption(_counts(generation))
        if generation.base is not None:
            self.texts[1].html(_frame(_spans(generation.base, None, self.theme)))
            self.counts[1].caption(f"{len(generation.base)} tokens, {_speed(generation.base)}")


class PartialRun:
    """The result of a stopped run. The stopped run fills it in, and the page's next run reads it."""

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.generation: Generation | None = None
        self.ended = threading.Event()


def watched(
    request: GenerationRequest, place: st.delta_generator.DeltaGenerator, theme: Theme
) -> Callable[[ModelLoader, Progress], Generation]:
    """The request's run, drawn into `place`. If it is stopped, the session keeps what was written."""

    def run(load: ModelLoader, progress: Progress) -> Generation:
        live, stopped = Live(place, theme), PartialRun(request)
        st.session_state[PARTIAL] = stopped
        try:
            generation = request.run(load, progress, live)
        except Exception:
            place.empty()
            raise
        except BaseException:  # Streamlit's own, at a redraw; any further call of Streamlit raises again
            if live.run is not None:
                stopped.generation = live.run.stopped()
            raise
        finally:
            stopped.ended.set()
        place.empty()
        return generation

    return run


def partial(request: GenerationRequest) -> Generation | None:
    """What was written for a request before the reader stopped it; None if nothing was."""
    stopped: PartialRun | None = st.session_state.get(PARTIAL)
    if stopped is None or stopped.request != request or not stopped.ended.wait(SECONDS_TO_END):
        return None
    return stopped.generation if stopped.generation is not None and len(stopped.generation.micro) else None


def _counts(generation: Generation) -> str:
    steps = f"{generation.macro_steps} macro and {generation.micro_steps} micro steps"
    per = significant(generation.tokens_per_macro_step)
    return f"{len(generation.micro)} tokens, {steps}, {per} tokens per macro step, {_speed(generation.micro)}"


def _speed(answer: Answer) -> str:
    return f"{significant(answer.tokens_per_second)} tokens/s"


def _frame(inside: str) -> str:
    return f"<div class='live'><div>{inside}</div></div>"


def _spans(answer: Answer, starts: NDArray[np.int32] | None, theme: Theme) -> str:
    """HTML of the tokens: each on its shade, with a gap before each segment. `safe` escapes the text."""
    begins = set(range(len(answer)) if starts is None else starts.tolist())
    display, spans = answer.display, []
    for i in range(max(0, len(answer) - SHOWN), len(answer)):
        p = float(answer.probability[i])
        gap = "begins" if i in begins and starts is not None else "goes-on"
        style = _style(0.0 if np.isnan(p) else 1 - p, theme)
        spans.append(f"<span class='{gap}' style='{style}'>{safe(display[i])}</span>")
    return "".join(spans)


def _style(shade: float, theme: Theme) -> str:
    """Background and text colour of a shade, 0 to 1, on the sequential scale."""
    ramp = SEQUENTIAL[theme]
    stops = np.linspace(0, 1, len(ramp))
    ground = [round(float(np.interp(shade, stops, part))) for part in zip(*ramp, strict=True)]
    bright = 0.299 * ground[0] + 0.587 * ground[1] + 0.114 * ground[2] > MIDDLE
    ink = (INK if bright == (theme == "light") else CARD)[theme]
    return f"background:rgb({','.join(map(str, ground))});color:{ink}"
