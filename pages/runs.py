"""How is training going, and which run is best?"""

from functools import partial
from pathlib import Path
from typing import cast

import streamlit as st

from analysis.discovery import Found, Place
from analysis.figures.figure import Figure
from analysis.runs.discovery import find_runs
from analysis.runs.figures import draw
from analysis.runs.log import RunLog
from analysis.runs.provenance import origin
from analysis.runs.summary import summarise
from analysis.runs.tables import remarks, unlike
from analysis.runs.view import RunsView
from app.access.settings import SHIPPED, settings
from app.cache import log_cache
from app.cards import card
from app.error_net import fragment
from app.escape import escape_markdown
from app.runs.cards import checkpoints_card, facts_card, runs_card, summary
from app.runs.controls import DEFAULT_FOLDER, choose, folder, measure, view
from app.sidebar import SidebarInputs
from app.widgets import ROOT
from model.errors import MicroStepError

REFRESH_SECONDS = 3.0  # between two looks at growing logs
EXAMPLE_COMMAND = "micro-step train trainer/recipes/tiny.yaml"

inputs: SidebarInputs = st.session_state["inputs"]


def results(parent: Path, found: Found, chosen: list[Place], known: object) -> None:
    """Everything below the choice of runs. A control or a growing log redraws only this."""
    listed = log_cache().briefly(found.places)
    whole = log_cache().runs(chosen)
    runs = whole.runs
    if known != stage_of(chosen) or found != settings().own("runs", find_runs(parent)):
        st.rerun(scope="app")  # a run started, ended, or wrote a checkpoint, so the rest of the page changes too
    for problem in dict.fromkeys([*whole.problems, *listed.problems]):
        st.error(escape_markdown(problem, longest=600))
    for run in runs:
        for problem in run.damage:
            st.error(escape_markdown(problem, longest=600))
    above = st.container()
    with st.container(key="curve_controls"):
        curve_view = view(inputs.unit)
    if not runs:
        st.info("No run is chosen. Choose one or more above.")
        runs_card(listed.runs, (), curve_view, found.left_out)
        return
    with above:
        if (answer := summarise(runs)) is not None:
            summary(answer, curve_view)
        notes = [f"{run.name}: {note}." for run in runs for note in remarks(run) if note not in run.damage]
        if notes or unlike(runs):
            st.caption(escape_markdown(" ".join([unlike(runs), *notes]).strip(), longest=2000))
        runs_card(listed.runs, runs, curve_view, found.left_out)
    provenance = origin(runs, curve_view)
    card(drawn("curves", runs, curve_view), provenance)
    measure()
    card(drawn("position_curves", runs, curve_view), provenance)
    card(draw("positions", runs, curve_view), provenance)
    facts_card(runs, curve_view)


def drawn(name: str, runs: tuple[RunLog, ...], curve_view: RunsView) -> Figure:
    """A figure, redrawn only if its data changed: a live page looks every few seconds."""
    key = curve_view, [(run.name, run.facts, run.lines) for run in runs]
    known, figure = st.session_state.get(f"drawn_{name}", (None, None))
    if known != key:
        figure = draw(name, runs, curve_view)
        st.session_state[f"drawn_{name}"] = key, figure
    return cast(Figure, figure)


def stage_of(places: list[Place]) -> object:
    """The state of the runs that the page outside of `results` depends on."""
    return [(run.name, run.look.finished, len(run.look.checkpoints)) for run in log_cache().briefly(places).runs]


def page() -> None:
    """The choice of runs, and their figures."""
    parent = folder()
    try:
        found = settings().own("runs", find_runs(parent))
    except MicroStepError as error:
        found, problem = Found(()), str(error)
    else:
        problem = f"There is no training run in {parent} yet."
    if not found.places:
        st.info(escape_markdown(problem))
        st.caption("This command trains a small micro\\_step model from scratch in a few minutes:")
        st.code(EXAMPLE_COMMAND, language="bash")
        return
    if parent == ROOT / SHIPPED["runs"]:
        st.caption(
            "The logs of the models that come with micro\\_step. To see your own runs, train with "
            f"`{EXAMPLE_COMMAND}` and type their folder, `{DEFAULT_FOLDER}`."
        )
    chosen, live = choose(found)
    known = stage_of(chosen)
    unfinished = any(not run.look.finished for run in log_cache().briefly(chosen).runs)
    shown = partial(results, parent, found, chosen, known)
    fragment(shown, run_every=REFRESH_SECONDS if live and unfinished else None)()
    checkpoints_card(log_cache().runs(chosen).runs)


page()
