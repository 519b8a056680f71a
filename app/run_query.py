"""From a request to an answer, as the reader sees it: what is missing, what it costs, how far it is, how to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from analysis.query import ModelLoader, Query
from analysis.uncertainty.scoring import encode_for
from app import state
from app.cache import model_pool
from app.error_net import safely
from app.escape import escape_markdown
from app.model_fetch import all_here
from app.submission import submit, typed_text
from model.causal_lm.device_memory import available_memory, spoken_bytes
from model.errors import MicroStepError, TextError
from model.hub.loading import LoadedModel
from model.progress import Progress

Answer = TypeVar("Answer")

HEAVY = 30.0  # seconds on a CPU from which a run is asked for first
FEWEST, MOST_OF_ALL = 5, 0.9  # tokens of a shorter run that is offered: so many at least, and this share at most
REDRAW_SECONDS = 0.15


@dataclass(frozen=True)
class QueryDisplay(Generic[Answer]):
    """How a run is made and spoken of."""

    doing: str = "scoring"
    run: Callable[[ModelLoader, Progress], Answer] | None = None  # the question's own if None
    stopped: str = "Stopped. Nothing was kept of this run."


def run_or_get(asked: Query[Answer], way: QueryDisplay[Answer] | None = None) -> Answer | None:
    """The answer to a question: at once if it was given before, else computed in front of the reader.

    Returns None where there is none (yet); the page then says why and what helps.
    """
    return answers([asked], way)[0]


def ask(
    questions: Sequence[Query[Answer]], run: Callable[[ModelLoader, Progress | None], Answer] | None = None
) -> list[Answer | None]:
    """The page's `Ask`: answers in front of the reader."""
    return answers(questions, QueryDisplay("scoring" if run is None else "reading", run))


def stored_or_none(asked: Query[Answer]) -> Answer | None:
    """The answer that comes with the project, or None. Only where such answers are made, it is computed."""
    if model_pool().examples is None:
        return run_or_get(asked)
    found = model_pool().get(asked)
    if model_pool().stored(asked):
        st.session_state[state.STORED].append(asked)
    return found


def answers(questions: Sequence[Query[Answer]], way: QueryDisplay[Answer] | None = None) -> list[Answer | None]:
    """The answers to several questions, as `run_or_get`; what is missing is computed one after another."""
    way = way or QueryDisplay()
    found = [model_pool().get(each) for each in questions]
    st.session_state[state.STORED] += [each for each in questions if model_pool().stored(each)]
    missing = [each for each, known in zip(questions, found, strict=True) if known is None]
    if not missing or not all_here(missing):
        return found
    stopped: set[Query[Any]] = st.session_state.setdefault(state.STOPPED, set())
    if stopped.intersection(missing):
        st.info(way.stopped)
        # the button fades only slowly: a second click finds nothing to take away
        again = _key("again", missing)
        st.button("Run again", type="primary", on_click=safely(stopped.difference_update), args=(missing,), key=again)
        return found
    place = st.empty()
    try:
        with place.container():
            done = _compute(missing, way)
    except MicroStepError as error:
        place.empty()
        st.error(escape_markdown(str(error)))
        return found
    except MemoryError:
        place.empty()
        st.error("The machine's memory is full. Shorten the text, or choose a smaller model or precision.")
        return found
    if done:
        place.empty()
    return [model_pool().get(each) for each in questions]


@contextmanager
def says_what_is_stored(place: st.delta_generator.DeltaGenerator) -> Iterator[None]:
    """Say in `place` if the results of the page that runs in this block come with the project, and offer to compute."""
    stored: list[Query[Any]] = []
    st.session_state[state.STORED] = stored
    yield
    if stored:
        place.button(
            "Stored results. Compute them here", type="tertiary", key="compute_anew",
            on_click=safely(model_pool().compute_anew), args=(tuple(stored),),
            help="These results come with micro_step: the same models computed them on a CPU, and no model was loaded "
            "to show them. Click to load the models and compute them on this machine.",
        )  # fmt: skip


def _compute(questions: Sequence[Query[Any]], way: QueryDisplay[Any]) -> bool:
    """Run what was not run before; False where the reader must say yes first."""
    bar = st.progress(0.0, text="starting")
    stop = st.empty()
    stop.button("Stop", on_click=safely(_stop), args=(questions,), key=_key("stop", questions))
    pool = model_pool()

    def waiting(message: str) -> None:
        _show(bar, message, None)

    for each in questions:
        with pool.queue.turn(_visitor(), each, partial(_is_known, each), waiting) as turn:
            if turn is None:  # another visitor asked the same, and has the answer
                continue
            turn.doing = way.doing
            models = pool.load(each, lambda what, share: _show(bar, what, share))
            if _must_ask(each, models, questions):
                bar.empty()
                stop.empty()
                return False
            progress = pool.queue.watched(turn, Ticker(bar, way.doing), waiting)
            pool.run(each, models, progress, way.run, turn.seconds)
    return True


def _is_known(question: Query[Any]) -> bool:
    return model_pool().get(question) is not None


def _visitor() -> str:
    context = get_script_run_ctx()
    return "" if context is None else context.session_id


def _key(what: str, questions: Sequence[Query[Any]]) -> str:
    """A page may ask several times in one run: its buttons are told apart by the questions."""
    return f"{what}_{hash(tuple(questions))}"


def _stop(questions: Sequence[Query[Any]]) -> None:
    st.session_state[state.STOPPED].update(questions)


def _must_ask(asked: Query[Any], models: dict[str, LoadedModel], questions: Sequence[Query[Any]]) -> bool:
    """Say what a heavy run costs, and wait for a yes, which holds for all questions, or for a shorter question."""
    accepted: set[Query[Any]] = st.session_state.setdefault(state.ACCEPTED, set())
    if asked in accepted:
        return False
    lines, seconds, tokens = [], 0.0, 0
    for side, loaded in models.items():
        try:
            cost = asked.cost(loaded)
        except TextError as error:
            raise TextError(f"model {side}, {error}" if len(models) > 1 else str(error)) from error
        if loaded.model.device.type == "cpu":
            seconds += cost.work / model_pool().speed()
        free = spoken_bytes(available_memory(loaded.model.device))
        memory = f"about {spoken_bytes(cost.memory)} of memory ({free} are free)"
        lines.append(f"Model {side}: {cost.tokens:,} tokens, {memory}.")
        tokens = max(tokens, cost.tokens)
    if seconds <= HEAVY:
        return False
    st.info(f"This takes {_rough(seconds)} on this machine, by an estimate from its speed. {' '.join(lines)}")
    with st.container(horizontal=True):
        st.button(
            "Run it", type="primary", on_click=safely(accepted.update), args=(questions,), key=_key("run", questions)
        )
        start, first = _beginning(asked, next(iter(models.values())), int(tokens * HEAVY / seconds))
        if start:
            st.button(
                f"Run the first {first:,} tokens instead", on_click=safely(_submit_text), args=(start,),
                key=_key("shorter", questions), help=f"Takes about {HEAVY:.0f} s. The text above is shortened to them.",
            )  # fmt: skip
    return True


def _rough(seconds: float) -> str:
    """A time that is not known well: "about 40 s", "about 3 minutes"."""
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"


def _beginning(asked: Any, loaded: LoadedModel, tokens: int) -> tuple[str, int]:
    """The first tokens of the plain text that a question reads, and how many they are.

    There are none of a conversation, of a text that is hardly longer, and where too few fit to be worth a run.
    """
    while not hasattr(asked, "text"):
        inner = [getattr(asked, name, None) for name in ("of", "scores")]
        asked = next((each for each in inner if hasattr(each, "specs")), None)
        if asked is None:
            return "", 0
    if asked.text is None or len(asked.text.document.messages) > 1:
        return "", 0
    encoded = encode_for(loaded, asked.text)
    ends = encoded.source_end[encoded.source_end >= 0]
    if not FEWEST <= tokens <= MOST_OF_ALL * len(ends):
        return "", 0
    return str(asked.text.document.text[: ends[tokens - 1]]), tokens


def _submit_text(text: str) -> None:
    submit(**typed_text(text))


class Ticker:
    """A progress bar that says how long it still takes. Streamlit ends the run at a redraw when the reader stops it."""

    def __init__(self, bar: st.delta_generator.DeltaGenerator, doing: str) -> None:
        self.doing = doing
        self.bar, self.began, self.drawn = bar, time.monotonic(), 0.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self.drawn < REDRAW_SECONDS and share < 1:
            return
        self.drawn = now
        left = (now - self.began) * (1 - share) / share if share > 0.02 else None
        rest = f", about {left:.0f} s left" if left is not None and now - self.began > 1 else ""
        self.bar.progress(min(1.0, share), text=f"{self.doing}, {share:.0%}{rest}")


def _show(bar: st.delta_generator.DeltaGenerator, what: str, share: float | None) -> None:
    bar.progress(min(1.0, max(0.0, share or 0.0)), text=escape_markdown(what))
