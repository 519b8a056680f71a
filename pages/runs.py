"""How does training go, and which run came out best?"""

from functools import partial
from pathlib import Path
from typing import cast

import streamlit as st

from analysis.discovery import Found, Place
from analysis.figures.figure import Figure
from analysis.runs.discovery import find_runs
from analysis.runs.figures import draw
from analysis.runs.log import RunLog
from analysis.runs.provenance import RunsView, origin
from analysis.runs.summary import summarise
from analysis.runs.tables import remarks, unlike
from app.cache import shelf
from app.cards import card
from app.error_net import fragment
from app.escape import escape_markdown
from app.runs.cards import checkpoints_card, facts_card, runs_card, summary
from app.runs.controls import choose, folder, measure, view
from app.sidebar import SidebarInputs
from model.errors import MicroStepError

EVERY = 3.0  # seconds between looks at logs that grow
MAKES_ONE = "python -m trainer trainer/recipes/tiny.yaml"

inputs: SidebarInputs = st.session_state["inputs"]
st.title("Runs", anchor=False)
st.caption(
    "How training goes, from its logs: losses, accuracy per micro position, speed; several runs over each other."
)


def results(where: Path, found: Found, chosen: list[Place], known: object) -> None:
    """Everything below the choice of runs; a control redraws only this, and so does a log that grows."""
    listed = shelf().briefly(found.places)
    whole = shelf().runs(chosen)
    runs = whole.runs
    if known != stage_of(chosen) or found != find_runs(where):
        st.rerun(scope="app")  # a run began or ended, or wrote a checkpoint: the rest of the page changes too
    for problem in dict.fromkeys([*whole.problems, *listed.problems]):
        st.error(escape_markdown(problem, longest=600))
    for run in runs:
        for said in run.damage:
            st.error(escape_markdown(said, longest=600))
    above = st.container()
    how = view(inputs.unit)
    if not runs:
        st.info("No run is chosen. Choose one or more above.")
        runs_card(listed.runs, (), how, found.left_out)
        return
    with above:
        if (answer := summarise(runs)) is not None:
            summary(answer, how)
        notes = [f"{run.name}: {said}." for run in runs for said in remarks(run) if said not in run.damage]
        if notes or unlike(runs):
            st.caption(escape_markdown(" ".join([unlike(runs), *notes]).strip(), longest=2000))
        runs_card(listed.runs, runs, how, found.left_out)
    come_from = origin(runs, how)
    card(drawn("curves", runs, how), come_from)
    measure()
    card(drawn("position_curves", runs, how), come_from)
    card(draw("positions", runs, how), come_from)
    facts_card(runs, how)


def drawn(name: str, runs: tuple[RunLog, ...], how: RunsView) -> Figure:
    """A figure, drawn anew only if there is something new in it: a live page looks every few seconds."""
    key = how, [(run.name, run.facts, run.lines) for run in runs]
    known, figure = st.session_state.get(f"drawn_{name}", (None, None))
    if known != key:
        figure = draw(name, runs, how)
        st.session_state[f"drawn_{name}"] = key, figure
    return cast(Figure, figure)


def stage_of(places: list[Place]) -> object:
    """What the page outside of `results` depends on."""
    return [(run.name, run.look.finished, len(run.look.checkpoints)) for run in shelf().briefly(places).runs]


def page() -> None:
    """The choice of runs, and what they say."""
    where = folder()
    try:
        found = find_runs(where)
    except MicroStepError as error:
        found, problem = Found(()), str(error)
    else:
        problem = f"There is no training run in {where} yet."
    if not found.places:
        st.info(escape_markdown(problem))
        st.caption("This makes one, from nothing to a small micro_step model in a few minutes:".replace("_", "\\_"))
        st.code(MAKES_ONE, language="bash")
        return
    chosen, live = choose(found)
    known = stage_of(chosen)
    unfinished = any(not run.look.finished for run in shelf().briefly(chosen).runs)
    shown = partial(results, where, found, chosen, known)
    fragment(shown, run_every=EVERY if live and unfinished else None)()
    checkpoints_card(shelf().runs(chosen).runs)


page()
