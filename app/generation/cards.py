"""The cards of the generation page: the summary, the answer, its timeline and segments, and the sweep over tau."""

from __future__ import annotations

from functools import partial

import streamlit as st

from analysis.figures.figure import Figure, visible
from analysis.generation import figures, sweep_figures
from analysis.generation.provenance import origin, serve_command
from analysis.generation.recordings import Recording, recorded
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Generation
from analysis.generation.summary import agreement, cost, counted, judged, kind, promise, read
from analysis.generation.sweep import SweepRequest, parse_values
from analysis.generation.view import GenerationView
from analysis.provenance import Provenance
from analysis.score_registry import PER_NAT, Unit, significant
from analysis.strips.generation import generation_strip, sweep_strip
from app.cache import model_pool
from app.cards import card, export_menu, fold
from app.error_net import fragment, safely
from app.escape import escape_markdown
from app.generation import live
from app.generation.controls import epsilons, taus, timeline_over
from app.generation.estimate import seconds_to_run
from app.generation.film import film_screen
from app.links import held
from app.run_query import QueryDisplay, run_or_get
from app.state import ACCEPTED, PINNED_ANSWER, SWEEPS, pin, pinned
from app.styles import theme
from app.token_strip import token_strip
from app.widgets import row_table

pin_answer = partial(pin, key=PINNED_ANSWER)
RECORDED = "**Recording** of its own prompt. "
UNTRAINED = (
    "**Untrained.** The micro decoder is a copy of the base's last layers, and the merger is a plain mean. What this "
    "model writes, and how fast, says nothing about trained models. For a trained one, choose micro-step-tiny at the "
    "top."
)


def recording_cards(recording: Recording, unit: Unit) -> None:
    """A recording, which needs no model."""
    generation = recorded(recording.name)
    _film(recording.request, generation, unit, recording.why, RECORDED)
    _folded(recording.request, generation, unit)


def answer_cards(request: GenerationRequest, asked: bool, unit: Unit) -> None:
    """The reader's own run: streamed while it is written, and shown in full or as far as it came before a stop."""
    if not asked and model_pool().get(request) is None:
        st.info("These settings have not been run on this text yet. Press Run to start.")
        return
    progress, place = st.container(), st.empty()
    partly = live.partial(request)
    stopped = "Stopped. Nothing was written yet."
    if partly is not None:
        stopped = f"Stopped. The {counted(len(partly.micro), 'token')} written until then are shown below."
    run = live.watched(request, place, theme())
    with progress:
        generation = run_or_get(request, QueryDisplay("writing", run, stopped))
    generation = generation or partly
    if generation is None:
        return
    _film(request, generation, unit)
    _folded(request, generation, unit)
    if generation.finished:
        fold("taus", "Other values of tau", lambda: _sweep(request, unit))


def _film(request: GenerationRequest, generation: Generation, unit: Unit, why: str = "", source: str = "") -> None:
    """What was found, in a sentence, above the film; below it, why, and what a reader must know."""
    view = GenerationView(unit, theme())
    with st.container(border=True, key="card_film", gap="xsmall"):
        with st.container(horizontal=True, gap="small", key="finding"):
            st.markdown(f"{source}{escape_markdown(cost(generation))}.", width="stretch")
            with st.container(width="content"):
                export_menu(figures.draw("film", generation, view), origin(request, generation, view))
        film_screen(generation)
        if said := judged(generation, why):
            st.markdown(escape_markdown(said, longest=1000))
        _caveats(generation)


def _summary(generation: Generation, unit: Unit) -> None:
    """The four numbers that answer the page's question, and the caveats."""
    base, agreed = generation.base, generation.agreement
    with st.container():
        columns = st.columns(4)
        with columns[0]:
            st.metric(
                "tokens per macro step",
                significant(generation.tokens_per_macro_step),
                help="New tokens divided by passes of the base model, including the pass over the prompt.",
            )
            drafts = f"{generation.accepted} of {generation.drafted} drafts kept" if generation.verified else ""
            offers = drafts or counted(generation.micro_steps, "micro step")
            steps = counted(generation.macro_steps, "macro step")
            st.caption(f"{counted(len(generation.micro), 'token')} in {steps}; {offers}")
        with columns[1]:
            known = generation.cache_slots > 0
            st.metric(
                "cache slots saved",
                f"{generation.cache_saved:.0%}" if known else "unknown",
                help="The share of the base's key-value cache that is saved, prompt included. A segment takes one "
                "slot, as a single token does.",
            )
            slots = f"{counted(generation.cache_slots, 'slot')} for {counted(generation.cached_tokens, 'token')}"
            slots = slots if known else "the run was stopped"
            st.caption("checked drafts are not merged" if generation.verified else slots)
        with columns[2]:
            alone = significant(base.tokens_per_second) if base else "none"
            st.metric(
                "written tokens/s, and the base's",
                f"{significant(generation.micro.tokens_per_second)} / {alone}",
                help="New tokens divided by wall-clock time, prompt included, from one run of each on this machine. "
                "Repeat the measurement before you quote it.",
            )
            ratio = "the base has not answered"
            if base:
                ratio = f"{significant(generation.speed_ratio)} times the base's speed"
            st.caption(f"{ratio}; this machine, one run each")
        with columns[3]:
            if generation.how.sampled:
                st.metric(
                    "the base's likeliest tokens",
                    "none" if base is None else f"{generation.micro.likeliest:.0%}",
                    help="The share of tokens that the base finds likeliest at their place. Sampled answers differ "
                    "even if the same model draws both, so the two are not compared token by token.",
                )
            else:
                st.metric(
                    "equal to the base's answer",
                    "none" if base is None else f"{agreed.share:.0%}",
                    help="The share of tokens that are the same at the same place. After the first difference, two "
                    "good answers diverge.",
                )
            nll, scale = "none", PER_NAT[unit]
            if base:
                nll = f"{significant(generation.micro.mean_nll * scale)} / {significant(base.mean_nll * scale)}"
            where = "token for token" if agreed.equal else f"for the first {counted(agreed.first or 0, 'token')}"
            if generation.how.sampled:
                where = f"{base.likeliest:.0%} of its own" if base else "the base has not answered"
            st.caption(f"{where}; {nll} {unit} per token under the base")


def _caveats(generation: Generation) -> None:
    """What the reader must know: untrained modules, what the base checked, and notes."""
    if generation.untrained:
        st.markdown(UNTRAINED)
    if generation.lossless_failed:
        st.warning(escape_markdown(promise(generation)))
    elif generation.verified:
        st.markdown(escape_markdown(promise(generation)))
    else:
        st.markdown(escape_markdown(f"Merged: {agreement(generation)}."))
    notes = [note for note in generation.notes if not note.startswith("untrained")]
    st.caption(escape_markdown("; ".join([f"{generation.facts.name}: {kind(generation)}", *notes]) + ".", longest=2000))


@fragment
def _folded(request: GenerationRequest, generation: Generation, unit: Unit) -> None:
    """The figures, folded. A pin redraws only these."""
    place = pinned(PINNED_ANSWER)
    over = held("over", "time")
    view = GenerationView(unit, theme(), place, "time" if over == "time" else "passes")
    provenance = origin(request, generation, view)

    def strip() -> None:
        token_strip(generation_strip(generation, unit), key="answer_strip", pinned=place, on_pin=pin_answer)

    fold("answer_numbers", "The numbers", lambda: _summary(generation, unit))
    card(figures.draw("answer", generation, view), provenance, body=strip, folded=True)
    fold("steps", "Macro and micro steps", lambda: _timeline(generation, view, provenance))
    endings = figures.draw("endings", generation, view)
    card(endings, provenance, folded=True)
    fold("answer_segments", "Segments", lambda: _segment_table(endings))
    fold("answer_prompt", "The prompt as the model reads it", lambda: _prompt(generation))
    fold("serve", "Serve this model", lambda: _serving(request, generation))


def _prompt(generation: Generation) -> None:
    st.caption(escape_markdown(read(generation.prompt)))
    st.code(generation.prompt.text[:20_000], language=None, wrap_lines=True)


def _serving(request: GenerationRequest, generation: Generation) -> None:
    st.caption(
        "In a terminal, this command serves the model with these settings on this machine. Any client of OpenAI's API "
        "can then use it, at `http://127.0.0.1:8000/v1`."
    )
    st.code(serve_command(request, generation), language="bash", wrap_lines=True)


def _timeline(generation: Generation, view: GenerationView, origin: Provenance) -> None:
    timeline_over()
    card(figures.draw("timeline", generation, view), origin, pin_from=_from_timeline, on_pin=pin_answer)


def _from_timeline(point: dict[str, object]) -> int | None:
    data = point.get("customdata")
    return int(data[0]) if isinstance(data, list) else None


def _segment_table(endings: Figure) -> None:
    """The table behind the figure of endings; choosing a row pins the segment's first token."""
    table = endings.data
    shown = table.drop(columns=["start", "end", "why", "refused_id", "seconds"])
    shown = shown.assign(text=shown["text"].map(visible), refused=shown["refused"].map(visible))

    row_table(
        shown,
        "segments_table",
        lambda row: pin_answer(int(table["start"].iloc[row])),
        height=320,
        column_config={
            "segment": st.column_config.NumberColumn("macro step"),
            "least_probability": st.column_config.NumberColumn("least probability", format="%.3f"),
            "why_ended": "why it ended",
            "refused_probability": st.column_config.NumberColumn("its probability", format="%.3f"),
        },
    )


def _sweep(request: GenerationRequest, unit: Unit) -> None:
    """Other values of tau, run when the reader asks for them."""
    with st.container():
        st.caption("Answers the same prompt with each value: how do the segments change, and how does the answer?")
        relaxed = parse_values(epsilons(), "eps") if request.how.lossless else ()
        query = SweepRequest(request, parse_values(taus(), "tau"), relaxed)
        started: set[SweepRequest] = st.session_state.setdefault(SWEEPS, set())
        if model_pool().get(query) is None and query not in started:

            def start() -> None:
                started.add(query)
                st.session_state.setdefault(ACCEPTED, set()).add(query)  # its time was told

            st.button("Run the sweep", on_click=safely(start))
            answers, tokens = counted(len(query.settings), "answer"), counted(request.how.max_new_tokens, "token")
            seconds = seconds_to_run(request, len(query.settings) + 1)
            st.caption(f"{answers} of up to {tokens}, and the base's own{f': about {seconds}' if seconds else ''}.")
            return
    sweep = run_or_get(query, QueryDisplay("writing"))
    if sweep is None:
        return
    view = GenerationView(unit, theme())
    provenance = origin(request, sweep, view)
    card(sweep_figures.draw("sweep", sweep, view), provenance)
    card(sweep_figures.draw("sweep_quality", sweep, view), provenance)
    strip = sweep_strip(sweep, unit)
    card(
        sweep_figures.draw("sweep_segments", sweep, view),
        provenance,
        body=lambda: token_strip(strip, key="sweep_strip"),
    )
