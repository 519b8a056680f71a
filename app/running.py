"""From a request to an answer, as the reader sees it: what is missing, what it costs, how far it is, how to stop."""

from __future__ import annotations

import time
from pathlib import Path

import streamlit as st

from analysis.compare import Comparison
from analysis.request import Request
from analysis.scoring import cost_of, encode_for, fit
from app import state
from app.cache import workshop
from app.plain import plain
from model.catalog import find
from model.cost import available_memory
from model.document import Document
from model.errors import MicroStepError
from model.fetch import fetch, is_cached
from model.hub import is_repo_id
from model.loading import LoadedModel, ModelSpec

HEAVY = 1.5e12  # multiplications from which a run on a CPU takes more than half a minute: it is asked for first
REDRAW_SECONDS = 0.15


def answer(request: Request) -> Comparison | None:
    """The answer to a request: at once if it was given before, else computed in front of the reader.

    Returns None where there is none (yet); the page then says why and what helps.
    """
    found = workshop().answer(request)
    if found is not None:
        return found
    if not _ready(request):
        return None
    if st.session_state.get(state.STOPPED) == request:
        st.info("Stopped. Nothing was kept of this run.")
        # the button fades only slowly: a second click finds nothing to take away
        st.button("Run again", type="primary", on_click=lambda: st.session_state.pop(state.STOPPED, None))
        return None
    place = st.empty()
    try:
        with place.container():
            found = _compute(request)
    except MicroStepError as error:
        place.empty()
        st.error(plain(str(error)))
        return None
    except MemoryError:
        place.empty()
        st.error("The machine's memory is full. Shorten the text, or choose a smaller model or precision.")
        return None
    if found is not None:
        place.empty()
    return found


def _ready(request: Request) -> bool:
    """Both models are on this machine; if not, offer to fetch them: a link alone never starts a download."""
    for side, spec in (("A", request.a), ("B", request.b)):
        entry = find(spec.name)
        if is_cached(spec.name) or (entry is None and not _on_hub(spec.name)):
            continue  # what is neither here nor to be fetched fails at loading, with the reason
        st.info(f"Model {side}, {plain(spec.name)}, is not on this machine yet.")
        accepted = False
        if entry is not None and entry.terms_needed:
            terms = f"I accept its licence, {plain(entry.licence)}: {entry.licence_url}"
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
    with st.status(f"Fetching {plain(spec.name)}", expanded=True) as status:
        bar = st.progress(0.0)
        st.caption("Leaving or reloading the page stops it; nothing is left half-written.")
        try:
            fetch(spec.name, spec.revision, lambda what, share: _show(bar, what, share), accepted)
        except MicroStepError as error:
            status.update(label="It could not be fetched", state="error")
            st.error(plain(str(error)))
            st.stop()


def _compute(request: Request) -> Comparison | None:
    bar = st.progress(0.0, text="starting")
    stop = st.empty()
    stop.button("Stop", on_click=_stop, args=(request,), key="stop")
    with workshop().turn(wait=lambda: _show(bar, "waiting for another run to end", None)):
        found = workshop().answer(request)  # another reader may have asked the same meanwhile
        if found is not None:
            return found
        a, b = workshop().load(request, lambda what, share: _show(bar, what, share))
        if _must_ask(request, (a, b)):
            bar.empty()
            stop.empty()
            return None
        progress = _Ticker(bar)
        return workshop().run(request, progress)


def _stop(request: Request) -> None:
    st.session_state[state.STOPPED] = request


def _must_ask(request: Request, models: tuple[LoadedModel, LoadedModel]) -> bool:
    """Say what a heavy run costs, and wait for a yes."""
    accepted: set[Request] = st.session_state.setdefault(state.ACCEPTED, set())
    if request in accepted:
        return False
    lines, heavy = [], False
    for side, loaded in zip("AB", models, strict=True):
        tokens, memory, work = _cost(loaded, request.document, request)
        heavy |= work > HEAVY and loaded.model.device.type == "cpu"
        free = available_memory(loaded.model.device) / 1e9
        lines.append(
            f"Model {side}: {tokens:,} tokens, about {memory / 1e9:.1f} GB of memory ({free:.1f} GB are free)."
        )
    if heavy:
        st.info("This will take a while on this machine. " + " ".join(lines))
        st.button("Run it", type="primary", on_click=accepted.add, args=(request,))
    return heavy


def _cost(loaded: LoadedModel, document: Document, request: Request) -> tuple[int, int, float]:
    """Tokens, bytes on top of the weights, and work as multiplications: of weights, and of attention."""
    encoded, _ = fit(loaded, encode_for(loaded, document, request.chat, request.force_bos))
    tokens = len(encoded) + request.new_tokens
    # a generated token costs a pass over all weights by itself, about as much as ten that are read together
    attention = loaded.facts.layers * loaded.facts.hidden_size * float(tokens) ** 2
    passes = len(encoded) + 10.0 * request.new_tokens
    return tokens, cost_of(loaded, tokens).run, loaded.facts.parameters * passes + attention


class _Ticker:
    """A progress bar that says how long it still takes. Streamlit ends the run at a redraw when the reader stops it."""

    def __init__(self, bar: st.delta_generator.DeltaGenerator) -> None:
        self.bar, self.began, self.drawn = bar, time.monotonic(), 0.0

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self.drawn < REDRAW_SECONDS and share < 1:
            return
        self.drawn = now
        left = (now - self.began) * (1 - share) / share if share > 0.02 else None
        rest = f", about {left:.0f} s left" if left is not None and now - self.began > 1 else ""
        self.bar.progress(min(1.0, share), text=f"scoring, {share:.0%}{rest}")


def _show(bar: st.delta_generator.DeltaGenerator, what: str, share: float | None) -> None:
    bar.progress(min(1.0, max(0.0, share or 0.0)), text=plain(what))
