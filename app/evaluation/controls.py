"""The controls of the evaluation page: which evaluations, and which runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import streamlit as st

from analysis.discovery import Found, Place
from app.cache import sample_file
from app.widgets import folder_input, indexed_selectbox, segmented, settle_choice
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


@dataclass(frozen=True)
class EvaluationControls:
    """Two runs side by side, and which of their documents are shown."""

    beside: SideBySide
    show: Show


def folder() -> Path:
    """The folder that holds evaluations."""
    meaning = "A folder that holds evaluations, up to three folders deep, or the folder of one."
    return folder_input("Folder of evaluations", FOLDER, "evaluations", DEFAULT_FOLDER, meaning)


def choose(found: Found) -> list[Place]:
    """Draw the choice of evaluations, and read it."""
    names = settle_choice(found, EVALUATIONS, MOST_SHOWN, MOST_SHOWN)
    chosen = st.multiselect(
        "Evaluations", names, max_selections=MOST_SHOWN, key=EVALUATIONS,
        help=f"Up to {MOST_SHOWN}. Each is one model at several values of tau.",
    )  # fmt: skip
    return found.named(chosen)


def benchmark(rows: Sequence[ScoreRow]) -> list[ScoreRow]:
    """Draw the choice of a benchmark, and return its rows."""
    names = list(dict.fromkeys(row.benchmark.name for row in rows))
    meaning = "Applies to the summary, the samples and the invalid answers. The table holds all benchmarks."
    chosen = names[indexed_selectbox("Benchmark", names, BENCHMARK, help=meaning)]
    return [row for row in rows if row.benchmark.name == chosen]


def side(row: ScoreRow) -> SampleSide:
    """A run with its samples.

    Raises:
        TextError: the samples are gone or damaged.
    """
    file = sample_file(row.path)
    if file is None:
        raise TextError(f"{row.path} is gone; choose another run")
    return SampleSide(row.name, row.path, file)


def two_runs(rows: Sequence[ScoreRow]) -> tuple[SampleSide, ...]:
    """Draw the choice of one or two runs, and read it."""
    names = [row.name for row in rows]
    later = next((i for i, row in enumerate(rows) if i > 0 and (row.tau or 0) <= 1), len(rows) - 1)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        a = indexed_selectbox("A", names, RUN_A, help="A model and its tau. Above 1 the base alone writes.")
        b = indexed_selectbox(
            "B", [ALONE, *names], RUN_B, later + 1 if len(rows) > 1 else 0, help="The run to compare with."
        )
    return tuple(side(row) for row in (rows[a], *(rows[b - 1 : b] if b else ())))


def judged(sides: tuple[SampleSide, ...]) -> EvaluationControls:
    """Draw the choice of the score that decides and of the documents that are shown, and read it."""
    known = scores(sides)
    offered: list[Show] = ["all", *(("differing", "a-wrong", "b-wrong") if len(sides) > 1 else ())]
    offered += ["invalid"] if ways(sides) else []
    with st.container(horizontal=True, vertical_alignment="bottom"):
        score = known[
            indexed_selectbox(
                "Judged by", known, JUDGED, width=220, help="The score that decides which answers are right."
            )
        ]
        show = segmented(
            "Show", offered, SHOW, offered[0], format_func=SHOWN.__getitem__,
            help="**differing**: scored differently.  \n**wrong in A, right in B**: scored worse in A than in B. With "
            "several answers to a document, the share of right ones decides.  \n"
            "**invalid**: no result could be extracted from an answer of A or B.",
        )  # fmt: skip
    return EvaluationControls(SideBySide(sides, score), show)


def unread(rows: Sequence[ScoreRow]) -> tuple[SampleSide, str] | None:
    """Draw the choice of a run and of the way its answers are read; None if the benchmark does not read answers."""
    names = [row.name for row in rows]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        chosen = side(rows[indexed_selectbox("Run", names, INVALID_RUN)])
        known = ways([chosen])
        if not known:
            return None
        meaning = "How a result is extracted from an answer. GSM8K has three ways; see docs/evaluation.md."
        way = segmented("Read by", known, WAY, known[0], help=meaning)
    return chosen, way
