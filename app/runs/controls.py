"""The controls of the runs page: which runs, which curves, and how they are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from analysis.discovery import Found, Place
from analysis.runs.curves import AXES, CURVES, MOST_SMOOTHING
from analysis.runs.discovery import MOST_SHOWN
from analysis.runs.positions import Measure
from analysis.runs.view import SMOOTHING, RunsView
from analysis.score_registry import Unit
from app.links import held, linked
from app.styles import theme
from app.widgets import folder_input, segmented, settle_choice, slider

FOLDER, RUNS, CURVE, X, SMOOTH, LOG, MEASURE, LIVE = (
    "folder", "runs", "curves", "x", "smoothing", "log_scale", "per_position", "live",
)  # fmt: skip
DEFAULT_FOLDER = "runs"
FIRST = 3  # the newest runs, which a first visit compares
FORMERLY = {"tokens per second": "training tokens per second"}  # in older links
NAMES = {each.title: name for name, each in CURVES.items()}  # the URL holds what is shown


def folder() -> Path:
    """The folder that holds runs."""
    meaning = "A folder that holds training runs, up to three folders deep, or the folder of one run."
    return folder_input("Folder of runs", FOLDER, "runs", DEFAULT_FOLDER, meaning)


def choose(found: Found) -> tuple[list[Place], bool]:
    """Draw the choice of runs, and read it: the runs, and whether the page follows unfinished ones."""
    names = settle_choice(found, RUNS, FIRST, MOST_SHOWN)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = st.multiselect(
            "Runs to compare", names, max_selections=MOST_SHOWN, key=RUNS,
            help=f"Up to {MOST_SHOWN}. Each has one colour in all figures, which depends on its place here.",
        )  # fmt: skip
        live = st.toggle(
            "Live", **linked(LIVE, True),
            help="Reads new lines every few seconds while a chosen run has no final model.",
        )  # fmt: skip
    return found.named(chosen), bool(live)


def view(unit: Unit) -> RunsView:
    """Draw the controls of the curves, and read them."""
    curves = st.pills(
        "Curves", list(NAMES), selection_mode="multi", **linked(CURVE, ["loss"], _titles, "curve"),
        help="One panel for each.  \n" + "  \n".join(f"**{each.title}**: {each.meaning}" for each in CURVES.values()),
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        x = segmented(
            "Over", list(AXES), X, "step",
            help="  \n".join(
                (
                    "**step**: optimiser steps.",
                    "**tokens**: labelled tokens trained on so far.",
                    "**seconds**: time spent on training, over all sessions and machines.",
                )
            ),
        )  # fmt: skip
        smoothing = slider(
            "Smoothing", 0.0, MOST_SMOOTHING, SMOOTHING, 0.01, SMOOTH, width=260,
            help="The weight b of earlier log lines: s = Σ bⁿ⁻ⁱ wᵢ xᵢ / Σ bⁿ⁻ⁱ wᵢ, where wᵢ is the number of tokens "
            "in line i. The start is not pulled to zero, and a line of few tokens counts little. Validations are not "
            "smoothed.",
        )  # fmt: skip
        log = st.toggle(
            "Log scale", **linked(LOG, False),
            help="For losses, NLL, gradient norm and learning rates. Shares and speeds stay linear.",
        )  # fmt: skip
    names = tuple(NAMES[str(title)] for title in curves or ()) or ("loss",)
    measure: Measure = "nll" if held(MEASURE, "accuracy", formerly="measure") == "NLL" else "accuracy"
    return RunsView(names, x, smoothing, bool(log), measure, unit, theme())


def _titles(words: Sequence[str]) -> list[str]:
    return [title for word in words if (title := FORMERLY.get(word, word)) in NAMES]


def measure() -> None:
    """Draw the choice of the measure per micro position; `view` reads it."""
    segmented(
        "Per micro position", ["accuracy", "NLL"], MEASURE, "accuracy", formerly="measure",
        help="**accuracy**: share of tokens that the model found likeliest.  \n**NLL**: mean −ln p of the tokens.",
    )  # fmt: skip
