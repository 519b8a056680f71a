"""From a request to an answer, as the reader sees it: what is missing, what it costs, how far it is, how to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import streamlit as st

from analysis.query import ModelLoader, Query
from app import state
from app.cache import model_pool
from app.error_net import safely
from app.escape import escape_markdown
from model.causal_lm.device_memory import available_memory
from model.errors import MicroStepError, TextError
from model.hub.catalog import find
from model.hub.fetch import fetch, is_cached
from model.hub.huggingface import is_repo_id
from model.hub.loading import LoadedModel, ModelSpec
from model.progress import Progress

Answer = TypeVar("Answer")

HEAVY = 1.5e12  # multiplications from which a run on a CPU takes more than half a minute: it is asked for first
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


def answers(questions: Sequence[Query[Answer]], way: QueryDisplay[Answer] | None = None) -> list[Answer | None]:
    """The answers to several questions, as `run_or_get`; what is missing is computed one after another."""
    way = way or QueryDisplay()
    found = [model_pool().get(each) for each in questions]
    st.session_state[state.STORED] += [each for each in questions if model_pool().stored(each)]
    missing = [each for each, known in zip(questions, found, strict=True) if known is None]
    if not missing or not _ready(missing):
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
def says_what_is_stored() -> Iterator[None]:
    """Below the page that is run in this block: that its results come with the project, and a way to compute them."""
    stored: list[Query[Any]] = []
    st.session_state[state.STORED] = stored
    yield
    if not stored:
        return
    with st.container(horizontal=True, vertical_alignment="center", key="stored_note"):
        st.caption("Stored results that come with micro_step: the same models computed them on a CPU.", width="content")
        st.button(
            "Compute them here", type="tertiary", on_click=safely(model_pool().compute_anew), args=(tuple(stored),),
            key="compute_anew", help="Loads the models and runs them on this machine.",
        )  # fmt: skip


def _ready(questions: Sequence[Query[Any]]) -> bool:
    """All models are on this machine; if not, offer to fetch one: a link alone never starts a download."""
    for side, spec in {name: spec for each in questions for name, spec in each.specs.items()}.items():
        entry = find(spec.name)
        if is_cached(spec.name) or (entry is None and not _on_hub(spec.name)):
            continue  # what is neither here nor to be fetched fails at loading, with the reason
        st.info(f"Model {side}, {escape_markdown(spec.name)}, is not on this machine yet.")
        accepted = False
        if entry is not None and entry.terms_needed:
            terms = f"I accept its licence, {escape_markdown(entry.licence)}: {entry.licence_url}"
            accepted = st.checkbox(terms, key=f"terms_{side}")
        needs = entry is not None and entry.terms_needed and not accepted
        if st.button(f"Fetch model {side}", type="primary", disabled=needs, key=f"fetch_{side}"):
            _fetch(spec, accepted)
            st.rerun()
        return False
    return True


def _on_hub(name: str) -> bool:
    """Whether the hub may have it: it reads like a hub id, and nothing on this machine has that name."""
    return is_repo_id(name) and not Path(name).exists()


def _fetch(spec: ModelSpec, accepted: bool) -> None:
    with st.status(f"Fetching {escape_markdown(spec.name)}", expanded=True) as status:
        bar = st.progress(0.0)
        st.caption("Leaving or reloading the page stops it; nothing is left half-written.")
        try:
            fetch(spec.name, spec.revision, lambda what, share: _show(bar, what, share), accepted)
        except MicroStepError as error:
            status.update(label="It could not be fetched", state="error")
            st.error(escape_markdown(str(error)))
            st.stop()


def _compute(questions: Sequence[Query[Any]], way: QueryDisplay[Any]) -> bool:
    """Run what was not run before; False where the reader must say yes first."""
    bar = st.progress(0.0, text="starting")
    stop = st.empty()
    stop.button("Stop", on_click=safely(_stop), args=(questions,), key=_key("stop", questions))
    with model_pool().exclusive(wait=lambda: _show(bar, "waiting for another run to end", None)):
        for each in questions:
            if model_pool().get(each) is not None:  # another reader may have asked the same meanwhile
                continue
            models = model_pool().load(each, lambda what, share: _show(bar, what, share))
            if _must_ask(each, models, questions):
                bar.empty()
                stop.empty()
                return False
            model_pool().run(each, _Ticker(bar, way.doing), way.run)
    return True


def _key(what: str, questions: Sequence[Query[Any]]) -> str:
    """A page may ask several times in one run: its buttons are told apart by the questions."""
    return f"{what}_{hash(tuple(questions))}"


def _stop(questions: Sequence[Query[Any]]) -> None:
    st.session_state[state.STOPPED].update(questions)


def _must_ask(asked: Query[Any], models: dict[str, LoadedModel], questions: Sequence[Query[Any]]) -> bool:
    """Say what a heavy run costs, and wait for a yes, which holds for all questions."""
    accepted: set[Query[Any]] = st.session_state.setdefault(state.ACCEPTED, set())
    if asked in accepted:
        return False
    lines, heavy = [], False
    for side, loaded in models.items():
        try:
            cost = asked.cost(loaded)
        except TextError as error:
            raise TextError(f"model {side}, {error}" if len(models) > 1 else str(error)) from error
        heavy |= cost.work > HEAVY and loaded.model.device.type == "cpu"
        free = available_memory(loaded.model.device) / 1e9
        memory = f"about {cost.memory / 1e9:.1f} GB of memory ({free:.1f} GB are free)"
        lines.append(f"Model {side}: {cost.tokens:,} tokens, {memory}.")
    if heavy:
        st.info("This will take a while on this machine. " + " ".join(lines))
        st.button(
            "Run it", type="primary", on_click=safely(accepted.update), args=(questions,), key=_key("run", questions)
        )
    return heavy


class _Ticker:
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
