"""How good and how fast is each model at each tau, and what did two runs answer to the same question?"""

from collections.abc import Mapping, Sequence

import streamlit as st

from analysis.discovery import Found, Place
from app.access.settings import SHIPPED, settings
from app.cache import evaluation
from app.error_net import fragment
from app.escape import escape_markdown
from app.evaluation.cards import invalid_cards, report_cards, sample_cards, summary
from app.evaluation.controls import DEFAULT_FOLDER, benchmark, choose, folder, judged, two_runs, unread
from app.styles import theme
from app.widgets import ROOT
from evals.discovery import find_evaluations
from evals.report.score_rows import Evaluated, ScoreRow, report_rows
from model.errors import MicroStepError

EXAMPLE_COMMAND = "micro-step eval run --model micro-step-tiny --tasks sums --out evaluated/micro-step-tiny"


def open_evaluations(places: Sequence[Place]) -> Mapping[str, Evaluated]:
    """The evaluations that can be read, by name; the others are shown as errors."""
    opened = dict[str, Evaluated]()
    for place in places:
        try:
            opened[place.name] = evaluation(place.path)
        except MicroStepError as error:
            st.error(escape_markdown(f"{place.name} is left out: {error}", longest=600))
    return opened


@fragment
def samples(rows: Sequence[ScoreRow]) -> None:
    """Two runs side by side. A step to another document redraws only this."""
    st.header("Samples side by side", anchor=False)
    sample_cards(judged(two_runs(rows)), theme())


@fragment
def invalid(rows: Sequence[ScoreRow]) -> None:
    """The answers from which no result could be extracted."""
    st.header("Invalid answers", anchor=False)
    chosen = unread(rows)
    if chosen is None:
        st.caption("This benchmark does not extract anything from answers, so no answer is invalid.")
    else:
        invalid_cards(*chosen, theme())


def page() -> None:
    """The choice of evaluations, and their results."""
    parent = folder()
    try:
        found = settings().own("evaluations", find_evaluations(parent))
    except MicroStepError as error:
        found, problem = Found(()), str(error)
    else:
        problem = f"There is no evaluation in {parent} yet."
    if not found.places:
        st.info(escape_markdown(problem))
        st.caption("This command makes one in about a minute:")
        st.code(EXAMPLE_COMMAND, language="bash")
        return
    if parent == ROOT / SHIPPED["evaluations"]:
        st.caption(
            "A small evaluation that comes with micro\\_step. Its 20 sums say little. The machine was busy, so "
            "the speeds cannot be compared. To see your own, run "
            f"`{EXAMPLE_COMMAND}` and type the folder, `{DEFAULT_FOLDER}`."
        )
    chosen = choose(found)
    if found.left_out:
        st.caption(f"{found.left_out:,} older evaluations are left out. Choose a folder that holds fewer.")
    opened = open_evaluations(chosen)
    if not opened:
        st.info("No evaluation is shown. Choose one or more above.")
        return
    rows = report_rows(list(opened.values()))
    benchmark_rows = benchmark(rows)
    summary(benchmark_rows)
    report_cards(rows, opened, theme())
    samples(benchmark_rows)
    invalid(benchmark_rows)


page()
