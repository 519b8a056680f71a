"""What does a micro_step model write, in which segments, and what does the base write alone?"""

from functools import partial

import streamlit as st

from analysis.figures.figure import Figure, visible
from analysis.generation import figures as figures
from analysis.generation import sweep_figures as sweep_figures
from analysis.generation.provenance import GenerationView, origin
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Generation
from analysis.generation.summary import agreement, counted, kind, promise, read
from analysis.generation.sweep import SweepRequest, parse_taus
from analysis.score_registry import PER_NAT, significant
from app.cache import workshop
from app.cards import card
from app.error_net import fragment, safely
from app.escape import escape_markdown
from app.generation import live
from app.generation.controls import controls, taus, timeline_over
from app.generation.strip import generation_strip, sweep_strip
from app.run_query import QueryDisplay, run_or_get
from app.sidebar import SidebarInputs
from app.state import PINNED_ANSWER, pin, pinned
from app.styles import theme
from app.token_strip import token_strip
from model.errors import MicroStepError

SWEEPS = "sweeps"  # in the session: the sweeps that were asked for
pin_answer = partial(pin, key=PINNED_ANSWER)
inputs: SidebarInputs = st.session_state["inputs"]
st.title("Generation", anchor=False)
st.caption("A prompt is answered in segments: the base runs once for each, a micro decoder writes on while sure.")


def summary_row(found: Generation) -> None:
    """The four figures that answer the question, and what must be said of them."""
    base, agreed = found.base, found.agreement
    with st.container(border=True, key="card_summary"):
        columns = st.columns(4)
        with columns[0]:
            st.metric(
                "tokens per macro step",
                significant(found.tokens_per_macro_step),
                help="New tokens over passes of the base, the prompt's included.",
            )
            drafts = f"{found.accepted} of {found.drafted} drafts kept" if found.lossless else ""
            offers = drafts or counted(found.micro_steps, "micro step")
            steps = counted(found.macro_steps, "macro step")
            st.caption(f"{counted(len(found.micro), 'token')} in {steps}; {offers}")
        with columns[1]:
            known = found.cache_slots > 0
            st.metric(
                "cache slots saved",
                f"{found.cache_saved:.0%}" if known else "unknown",
                help="Of the base's key-value cache, prompt included: a segment takes one slot, a token alone one too.",
            )
            slots = f"{counted(found.cache_slots, 'slot')} for {counted(found.cached_tokens, 'token')}"
            slots = slots if known else "the run was stopped"
            st.caption("lossless decoding merges nothing" if found.lossless else slots)
        with columns[2]:
            alone = significant(base.tokens_per_second) if base else "none"
            st.metric(
                "tokens/s, and the base's",
                f"{significant(found.micro.tokens_per_second)} / {alone}",
                help="New tokens over wall-clock time, prompt included, in one run of each on this machine: "
                "repeat it before you quote it.",
            )
            ratio = f"{significant(found.speed_ratio)} times the base's speed" if base else "the base has not answered"
            st.caption(f"{ratio}; this machine, one run each")
        with columns[3]:
            if found.how.sampled:
                st.metric(
                    "the base's likeliest tokens",
                    "none" if base is None else f"{found.micro.likeliest:.0%}",
                    help="Tokens that the base finds likeliest after what stands before them. Two answers that are "
                    "drawn at random differ even where one model draws both: they are not compared token by token.",
                )
            else:
                st.metric(
                    "equal to the base's answer",
                    "none" if base is None else f"{agreed.share:.0%}",
                    help="Tokens that are the same at the same place. After a first difference two good answers part.",
                )
            per = PER_NAT[inputs.unit]
            nll = f"{significant(found.micro.mean_nll * per)} / {significant(base.mean_nll * per)}" if base else "none"
            where = "token for token" if agreed.equal else f"first {counted(agreed.first or 0, 'token')}"
            if found.how.sampled:
                where = f"{base.likeliest:.0%} of its own" if base else "the base has not answered"
            st.caption(f"{where}; {nll} {inputs.unit} a token under the base")
        _remarks(found)


def _remarks(found: Generation) -> None:
    """What a reader must know: untrained, lossless or not, notes."""
    if found.untrained:
        st.markdown(
            "**Untrained.** The micro decoder is a copy of the base's last layers, the merger a plain mean: "
            "what this writes, and how fast, says nothing about trained models. For a trained one choose "
            "micro-step-tiny in the sidebar."
        )
    if found.lossless_failed:
        st.warning(escape_markdown(promise(found)))
    elif found.lossless:
        st.markdown(escape_markdown(promise(found)))
    else:
        st.markdown(escape_markdown(f"Merged: {agreement(found)}."))
    notes = [note for note in found.notes if not note.startswith("untrained")]
    st.caption(escape_markdown("; ".join([f"{found.facts.name}: {kind(found)}", *notes]) + ".", longest=2000))


@fragment
def results(request: GenerationRequest, found: Generation) -> None:
    """The answer, its timeline and its segments; a pin redraws only this."""
    place = pinned(PINNED_ANSWER)
    over = st.session_state.get("over", st.query_params.get("over", "time"))
    view = GenerationView(inputs.unit, theme(), place, "time" if over == "time" else "passes")
    come_from = origin(request, found, view)
    strip = generation_strip(found, inputs.unit)
    card(
        figures.draw("answer", found, view),
        come_from,
        body=lambda: token_strip(strip, key="answer_strip", pinned=place, on_pin=pin_answer),
    )
    timeline_over()
    card(figures.draw("timeline", found, view), come_from, pin_from=_from_timeline, on_pin=pin_answer)
    endings = figures.draw("endings", found, view)
    card(endings, come_from)
    with st.expander("Segments"):
        _segments(found, endings)
    with st.expander("The prompt, as the model reads it"):
        st.caption(escape_markdown(read(found.prompt)))
        st.code(found.prompt.text[:20_000], language=None, wrap_lines=True)


def _from_timeline(point: dict[str, object]) -> int | None:
    data = point.get("customdata")
    return int(data[0]) if isinstance(data, list) else None


def _segments(found: Generation, endings: Figure) -> None:
    """The table behind "how segments ended"; choosing a row pins its first token."""
    table = endings.data
    shown = table.drop(columns=["start", "end", "why", "refused_id", "seconds"])
    shown = shown.assign(text=shown["text"].map(visible), refused=shown["refused"].map(visible))

    def chosen() -> None:
        rows = st.session_state["segments_table"]["selection"]["rows"]
        if rows:
            pin_answer(int(table["start"].iloc[rows[0]]))

    st.dataframe(
        shown,
        key="segments_table",
        on_select=safely(chosen),
        selection_mode="single-row",
        hide_index=True,
        height=320,
        column_config={
            "segment": st.column_config.NumberColumn("macro step"),
            "least_probability": st.column_config.NumberColumn("least probability", format="%.3f"),
            "why_ended": "why it ended",
            "refused_probability": st.column_config.NumberColumn("its probability", format="%.3f"),
        },
    )


def sweep_part(request: GenerationRequest) -> None:
    """Other values of tau, when they are asked for."""
    with st.container(border=True, key="card_taus"):
        st.markdown("**Other values of tau**")
        st.caption("The same prompt under each: how the segments change, and what it does to the answer.")
        try:
            asked = SweepRequest(request, parse_taus(taus()))
        except MicroStepError as error:
            st.error(escape_markdown(str(error)))
            return
        wanted: set[SweepRequest] = st.session_state.setdefault(SWEEPS, set())
        if workshop().answer(asked) is None and asked not in wanted:
            st.button("Run the sweep", on_click=safely(wanted.add), args=(asked,))
            runs, new = counted(len(asked.taus), "answer"), counted(request.how.max_new_tokens, "token")
            st.caption(f"{runs} of up to {new}, and the base's own.")
            return
    found = run_or_get(asked, QueryDisplay("writing"))
    if found is None:
        return
    view = GenerationView(inputs.unit, theme())
    come_from = origin(request, found, view)
    card(sweep_figures.draw("sweep", found, view), come_from)
    strip = sweep_strip(found, inputs.unit)
    card(
        sweep_figures.draw("sweep_segments", found, view),
        come_from,
        body=lambda: token_strip(strip, key="sweep_strip"),
    )


def shown(request: GenerationRequest) -> None:
    """The answer: streamed where it is not known yet, whole or as far as it came."""
    progress, place = st.container(), st.empty()
    kept = live.partial(request)
    said = "Stopped. Nothing was written yet."
    if kept is not None:
        said = f"Stopped. What was written until then is shown below: {counted(len(kept.micro), 'token')}."
    run = live.watched(request, place, theme())
    with progress:
        found = run_or_get(request, QueryDisplay("writing", run, said))
    if found is not None:
        summary_row(found)
        results(request, found)
        sweep_part(request)
    elif kept is not None:
        summary_row(kept)
        results(request, kept)


if inputs.problem:
    st.error(escape_markdown(inputs.problem))
elif inputs.a is None or inputs.b is None:
    st.info("Choose a model in the sidebar.")
else:
    try:
        chosen = controls(inputs.a, inputs.b, inputs.text)
    except MicroStepError as error:
        st.error(escape_markdown(str(error)))
        st.stop()
    if chosen.prompt is None:
        st.info("There is no prompt yet: choose an example, type one, or load a file in the sidebar.")
    else:
        asked = GenerationRequest(chosen.spec, chosen.prompt, chosen.how, chosen.side)
        shown(asked)
