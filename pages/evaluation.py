"""How good is each model at each tau, how fast, and what did two runs answer to the same question?"""

from collections.abc import Mapping, Sequence

import streamlit as st

from analysis.discovery import Found, Place
from app.cache import evaluation
from app.error_net import fragment
from app.escape import escape_markdown
from app.evaluation.cards import invalid_cards, report_cards, sample_cards, summary
from app.evaluation.controls import benchmark, choose, folder, judged, two_runs, unread
from app.styles import theme
from evals.discovery import find_evaluations
from evals.report.score_rows import Evaluated, ScoreRow, report_rows
from model.errors import MicroStepError

MAKES_ONE = "python -m evals run --model micro-step-tiny --tasks arc_challenge --limit 20 --out evaluated"

st.title("Benchmarks", anchor=False)
st.caption("How good a model is at each tau, and how fast; what two runs answered to the same question.")


def opened(places: Sequence[Place]) -> Mapping[str, Evaluated]:
    """The evaluations that can be read, by their names; what is damaged is said."""
    found = dict[str, Evaluated]()
    for place in places:
        try:
            found[place.name] = evaluation(place.path)
        except MicroStepError as error:
            st.error(escape_markdown(f"{place.name} is left out: {error}", longest=600))
    return found


@fragment
def samples(rows: Sequence[ScoreRow]) -> None:
    """Two runs beside each other; a step redraws only this."""
    st.subheader("Samples side by side", anchor=False)
    try:
        sample_cards(judged(two_runs(rows)), theme())
    except MicroStepError as error:
        st.error(escape_markdown(str(error), longest=600))


@fragment
def invalid(rows: Sequence[ScoreRow]) -> None:
    """The answers that could not be read."""
    st.subheader("Invalid answers", anchor=False)
    try:
        chosen = unread(rows)
        if chosen is None:
            st.caption("Nothing is read out of the answers of this benchmark, so that none is invalid.")
        else:
            invalid_cards(*chosen, theme())
    except MicroStepError as error:
        st.error(escape_markdown(str(error), longest=600))


def page() -> None:
    """The choice of evaluations, and what they say."""
    where = folder()
    try:
        found = find_evaluations(where)
    except MicroStepError as error:
        found, problem = Found(()), str(error)
    else:
        problem = f"There is no evaluation in {where} yet."
    if not found.places:
        st.info(escape_markdown(problem))
        st.caption("This makes one in about a minute, where the data set can be had:")
        st.code(MAKES_ONE, language="bash")
        return
    chosen = choose(found)
    if found.left_out:
        st.caption(f"{found.left_out:,} older evaluations are left out; give a folder that holds fewer.")
    there = opened(chosen)
    if not there:
        st.info("No evaluation is shown. Choose one or more above.")
        return
    rows = report_rows(list(there.values()))
    mine = benchmark(rows)
    summary(mine)
    report_cards(rows, there, theme())
    samples(mine)
    invalid(mine)


page()
