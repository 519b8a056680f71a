"""The controls of the benchmarks page: which evaluations, which runs side by side. Widgets in, plain values out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from analysis.discovery import Found, Place
from app.cache import sample_file
from app.widgets import folder_of, indexed_selectbox, segmented, settle_choice
from evals.discovery import MOST_SHOWN
from evals.report.sample_figures import SHOWN
from evals.report.score_rows import ScoreRow
from evals.report.side_by_side import SampleSide, Show, SideBySide, scores, ways
from model.errors import TextError

FOLDER, EVALUATIONS, BENCHMARK, RUN_A, RUN_B, JUDGED, SHOW, INVALID_RUN, WAY = (
    "evaluations", "evaluation", "benchmark", "run_a", "run_b", "judged_by", "show", "invalid_run", "way",
)  # fmt: skip
DEFAULT_FOLDER = "evaluated"
ALONE = "no second run"
LINKED: dict[str, Any] = {"bind": "query-params", "persist_state": "session"}


@dataclass(frozen=True)
class EvaluationControls:
    """What is looked at of the samples."""

    beside: SideBySide
    show: Show


def folder() -> Path:
    """The folder that holds evaluations."""
    meaning = "A folder that holds evaluations, up to three folders deep, or the folder of one."
    return folder_of("Folder of evaluations", FOLDER, DEFAULT_FOLDER, meaning)


def choose(found: Found) -> list[Place]:
    """The evaluations that stand in one report."""
    names = settle_choice(found, EVALUATIONS, MOST_SHOWN, MOST_SHOWN)
    chosen = st.multiselect(
        "Evaluations", names, key=EVALUATIONS, max_selections=MOST_SHOWN, **LINKED,
        help=f"Up to {MOST_SHOWN}: each is one model under some values of tau.",
    )  # fmt: skip
    return found.named(chosen)


def benchmark(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """The rows of the benchmark that is looked at."""
    names = list(dict.fromkeys(row.benchmark.name for row in rows))
    meaning = "Of the figures in the row below, of the samples and of the invalid answers; the table holds all."
    chosen = names[indexed_selectbox("Benchmark", names, BENCHMARK, help=meaning, **LINKED)]
    return [row for row in rows if row.benchmark.name == chosen]


def side(row: ScoreRow) -> SampleSide:
    """A run with its samples.

    Raises:
        TextError: they are gone, or damaged.
    """
    file = sample_file(row.path)
    if file is None:
        raise TextError(f"{row.path} is gone; choose another run")
    return SampleSide(row.name, row.path, file)


def two_runs(rows: Sequence[ScoreRow]) -> tuple[SampleSide, ...]:
    """The runs that stand beside each other: A, and B where there is one."""
    names = [row.name for row in rows]
    later = next((i for i, row in enumerate(rows) if i > 0 and (row.tau or 0) <= 1), len(rows) - 1)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        a = indexed_selectbox("A", names, RUN_A, help="A model, with its tau; above 1 its base alone writes.", **LINKED)
        b = indexed_selectbox(
            "B", [ALONE, *names], RUN_B, later + 1 if len(rows) > 1 else 0, help="The other run.", **LINKED
        )
    return tuple(side(row) for row in (rows[a], *(rows[b - 1 : b] if b else ())))


def judged(sides: tuple[SampleSide, ...]) -> EvaluationControls:
    """By which score they are compared, and which documents are shown."""
    known = scores(sides)
    offered: list[Show] = ["all", *(("differing", "a-wrong", "b-wrong") if len(sides) > 1 else ())]
    offered += ["invalid"] if ways(sides) else []
    with st.container(horizontal=True, vertical_alignment="bottom"):
        score = known[
            indexed_selectbox(
                "Judged by", known, JUDGED, width=220, **LINKED, help="The score, or way of reading, that decides."
            )
        ]
        titles = [SHOWN[show] for show in offered]
        shown = segmented(
            "Show", titles, SHOW, titles[0], persist_state="session",
            help="**differing**: scored differently.  \n**wrong in A, right in B**: scored lower in A than in B "
            "(higher, where low is good); with several answers to a document the share of right ones decides.  \n"
            "**invalid**: an answer of A or B could not be read.",
        )  # fmt: skip
    return EvaluationControls(SideBySide(sides, score), offered[titles.index(shown)])


def unread(rows: Sequence[ScoreRow]) -> tuple[SampleSide, str] | None:
    """The run and the way of reading whose invalid answers are listed; None where answers are not read."""
    names = [row.name for row in rows]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = side(rows[indexed_selectbox("Run", names, INVALID_RUN, **LINKED)])
        known = ways([chosen])
        if not known:
            return None
        meaning = "GSM8K is read three ways; what each can read is in docs/evaluation.md."
        way = segmented("Read by", known, WAY, known[0], persist_state="session", help=meaning)
    return chosen, way
