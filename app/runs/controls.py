"""The controls of the runs page: which runs, which curves, and how they are drawn."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from analysis.discovery import Found, Place
from analysis.runs.curves import AXES, CURVES, MOST_SMOOTHING
from analysis.runs.discovery import MOST_SHOWN
from analysis.runs.positions import Measure
from analysis.runs.view import SMOOTHING, RunsView
from analysis.score_registry import Unit
from app.styles import theme
from app.widgets import default, folder_input, linked, settle_choice

FOLDER, RUNS, CURVE, X, SMOOTH, LOG, MEASURE, LIVE = (
    "folder", "runs", "curve", "x", "smoothing", "log_scale", "measure", "live",
)  # fmt: skip
DEFAULT_FOLDER = "runs"
FIRST = 3  # the newest runs, which a first visit compares
NAMES = {each.title: name for name, each in CURVES.items()}  # the URL holds what is shown


def folder() -> Path:
    """The folder that holds runs."""
    meaning = "A folder that holds training runs, up to three folders deep, or the folder of one run."
    return folder_input("Folder of runs", FOLDER, DEFAULT_FOLDER, meaning)


def choose(found: Found) -> tuple[list[Place], bool]:
    """Draw the choice of runs, and read it: the runs, and whether the page follows unfinished ones."""
    names = settle_choice(found, RUNS, FIRST, MOST_SHOWN)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Runs to compare", names, max_selections=MOST_SHOWN, **linked(RUNS, kept=True),
            help=f"Up to {MOST_SHOWN}. Each has one colour in all figures, which depends on its place here.",
        )  # fmt: skip
        live = st.toggle(
            "Live", True, **linked(LIVE, kept=True),
            help="Reads new lines every few seconds while a chosen run has no final model.",
        )  # fmt: skip
    return found.named(chosen), bool(live)


def view(unit: Unit) -> RunsView:
    """Draw the controls of the curves, and read them."""
    default(CURVE, ["loss"])
    curves = st.pills(
        "Curves", list(NAMES), selection_mode="multi", **linked(CURVE, kept=True),
        help="One panel for each.  \n" + "  \n".join(f"**{each.title}**: {each.meaning}" for each in CURVES.values()),
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        default(X, "step")
        x = st.segmented_control(
            "Over", ["step", "tokens", "seconds"], required=True, **linked(X, kept=True),
            help="  \n".join(
                (
                    "**step**: optimiser steps.",
                    "**tokens**: labelled tokens trained on so far.",
                    "**seconds**: time spent on training, over all sessions and machines.",
                )
            ),
        )  # fmt: skip
        default(SMOOTH, SMOOTHING)
        smoothing = st.slider(
            "Smoothing", 0.0, MOST_SMOOTHING, step=0.01, width=260, **linked(SMOOTH, kept=True),
            help="The weight b of earlier log lines: s = Σ bⁿ⁻ⁱ wᵢ xᵢ / Σ bⁿ⁻ⁱ wᵢ, where wᵢ is the number of tokens "
            "in line i. The start is not pulled to zero, and a line of few tokens counts little. Validations are not "
            "smoothed.",
        )  # fmt: skip
        log = st.toggle(
            "Log scale", **linked(LOG, kept=True),
            help="For losses, NLL, gradient norm and learning rates. Shares and speeds stay linear.",
        )  # fmt: skip
    names = tuple(NAMES[str(title)] for title in curves or ()) or ("loss",)
    measure: Measure = "nll" if st.session_state.get(MEASURE, st.query_params.get(MEASURE)) == "NLL" else "accuracy"
    return RunsView(names, x if x in AXES else "step", float(smoothing), bool(log), measure, unit, theme())


def measure() -> None:
    """Draw the choice of the measure per micro position; `view` reads it."""
    default(MEASURE, "accuracy")
    st.segmented_control(
        "Per micro position", ["accuracy", "NLL"], required=True, **linked(MEASURE, kept=True),
        help="**accuracy**: share of tokens that the model found likeliest.  \n**NLL**: mean -ln p of the tokens.",
    )  # fmt: skip
