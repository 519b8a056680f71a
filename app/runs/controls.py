"""The controls of the runs page: which runs, which curves, and how they are drawn. Widgets in, plain values out."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from analysis.discovery import Found, Place
from analysis.runs.curves import AXES, CURVES, MOST_SMOOTHING
from analysis.runs.discovery import MOST_SHOWN
from analysis.runs.positions import Measure
from analysis.runs.provenance import SMOOTHING, RunsView
from analysis.score_registry import Unit
from app.styles import theme
from app.widgets import default, folder_of, settle_choice

FOLDER, RUNS, CURVE, X, SMOOTH, LOG, MEASURE, LIVE = (
    "folder", "runs", "curve", "x", "smoothing", "log_scale", "measure", "live",
)  # fmt: skip
DEFAULT_FOLDER = "runs"
FIRST = 3  # runs that a first visit compares: the newest
NAMES = {each.title: name for name, each in CURVES.items()}  # the URL holds what is shown


def folder() -> Path:
    """The folder that holds runs."""
    meaning = "A folder that holds training runs, up to three folders deep, or the folder of one run."
    return folder_of("Folder of runs", FOLDER, DEFAULT_FOLDER, meaning)


def choose(found: Found) -> tuple[list[Place], bool]:
    """The runs to compare, and whether the page follows those that are not finished."""
    names = settle_choice(found, RUNS, FIRST, MOST_SHOWN)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Runs to compare", names, key=RUNS, bind="query-params", persist_state="session", max_selections=MOST_SHOWN,
            help=f"Up to {MOST_SHOWN}. Each keeps one colour in all figures, by its place here.",
        )  # fmt: skip
        live = st.toggle(
            "Live", True, key=LIVE, bind="query-params", persist_state="session",
            help="Looks for new lines every few seconds while a chosen run has no final model.",
        )  # fmt: skip
    return found.named(chosen), bool(live)


def view(unit: Unit) -> RunsView:
    """How curves are drawn."""
    default(CURVE, ["loss"])
    curves = st.pills(
        "Curves", list(NAMES), selection_mode="multi", key=CURVE, bind="query-params", persist_state="session",
        help="A panel each.  \n" + "  \n".join(f"**{each.title}**: {each.meaning}" for each in CURVES.values()),
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        default(X, "step")
        x = st.segmented_control(
            "Over", ["step", "tokens", "seconds"], key=X, bind="query-params", persist_state="session", required=True,
            help="  \n".join(
                (
                    "**step**: optimiser steps.",
                    "**tokens**: labelled tokens trained on so far.",
                    "**seconds**: of training, over all sittings, on whatever machine it was.",
                )
            ),
        )  # fmt: skip
        default(SMOOTH, SMOOTHING)
        smoothing = st.slider(
            "Smoothing", 0.0, MOST_SMOOTHING, step=0.01, key=SMOOTH, bind="query-params", persist_state="session",
            width=260,
            help="Weight b of what came before, a line of the log: s = Σ bⁿ⁻ⁱ wᵢ xᵢ / Σ bⁿ⁻ⁱ wᵢ, with wᵢ the tokens "
            "that the line is a mean of. So the start is not pulled to zero, and a short line counts little. "
            "Validations are not smoothed.",
        )  # fmt: skip
        log = st.toggle(
            "Log scale", key=LOG, bind="query-params", persist_state="session",
            help="Of losses, NLL, gradient norm and learning rates; shares and speeds stay linear.",
        )  # fmt: skip
    names = tuple(NAMES[str(title)] for title in curves or ()) or ("loss",)
    measure: Measure = "nll" if st.session_state.get(MEASURE, st.query_params.get(MEASURE)) == "NLL" else "accuracy"
    return RunsView(names, x if x in AXES else "step", float(smoothing), bool(log), measure, unit, theme())


def measure() -> None:
    """What is drawn of micro positions over the log; `view` reads it."""
    default(MEASURE, "accuracy")
    st.segmented_control(
        "Per micro position", ["accuracy", "NLL"], key=MEASURE, bind="query-params", persist_state="session",
        required=True,
        help="**accuracy**: share of tokens that are the likeliest.  \n**NLL**: mean -ln p of the tokens.",
    )  # fmt: skip
