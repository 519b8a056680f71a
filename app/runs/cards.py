"""The cards of the runs page: the summary, the tables of runs and settings, and the checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import streamlit as st

from analysis.runs.figure_style import colours
from analysis.runs.figures import draw
from analysis.runs.log import CheckpointRecord, RunLog
from analysis.runs.provenance import origin
from analysis.runs.summary import RunsSummary, duration
from analysis.runs.tables import recipe
from analysis.runs.view import RunsView
from analysis.score_registry import PER_NAT, significant
from app.cards import card
from app.error_net import safely
from app.escape import escape_markdown
from app.links import linked
from app.sidebar import ADAPTER, REVISION
from app.submission import submit
from app.widgets import indexed_selectbox
from model.access import local_path
from model.hub.catalog import find
from model.hub.huggingface import is_repo_id

STATES = (
    "**finished**: the final model exists.  \n**running**: it does not, and the log changed less than a minute ago, or "
    "less than five of the run's own longest pauses ago.  \n**stopped**: the log is older.  \nThis is read from files; "
    "no process is asked. A run that was killed a moment ago still counts as running. One that pauses for long (a "
    "large validation, a busy disk, another machine's clock) counts as stopped until it writes again."
)
PAGES = {"Uncertainty": "uncertainty.py", "Segmentation": "segmentation.py", "Generation": "generation.py"}
SHOWN = (
    "run", "state", "steps", "planned", "stage", "loss", "validation_loss", "tokens_per_second", "objective", "base",
    "data",
)  # fmt: skip
FOLDER_OF_PAGES = Path(__file__).resolve().parents[2] / "pages"


def summary(found: RunsSummary, view: RunsView) -> None:
    """The four numbers that say how training is going."""
    line, best, under_way = found.line, found.best, found.under_way
    what = "validation" if found.validated else "training"
    with st.container(border=True, key="card_summary"):
        columns = st.columns(4)
        with columns[0]:
            loss = significant(line.token_loss * PER_NAT[view.unit])
            st.metric(
                f"{'lowest ' if found.compared > 1 else ''}{what} token loss",
                f"{loss} {view.unit}",
                help=(
                    "The loss of the tokens alone, at the last validation of each chosen run; the lowest is shown."
                    if found.validated
                    else "The loss of the tokens alone, in the last line of training: there is no validation yet."
                )
                + " The loss that training minimises has further parts (stops, a teacher) with weights that differ by"
                " recipe, so it cannot be compared.",
            )
            caption = f"{best.name}, step {line.step:,}"
            if found.apart:
                caption += f"; {found.apart:,} chosen runs have other data or another objective and cannot be compared"
            st.caption(escape_markdown(caption))
        with columns[1]:
            st.metric(
                f"{what} accuracy of this run",
                f"{line.accuracy:.1%}",
                help="The share of labelled tokens that the model found likeliest. The 95% interval is Student's t "
                "over validation rows, since the tokens of a row are not independent. There is none for training, for "
                "few rows, and in older logs.",
            )
            interval = found.accuracy.ends("{:.1%}".format, "95% interval ")
            st.caption(f"{interval}; {line.tokens:,} tokens")
        with columns[2]:
            st.metric(
                "training tokens per second",
                "none" if best.speed is None else f"{best.speed:,.0f}",
                help="The median of the last 20 log lines of this run, on its machine. Prompt tokens count too.",
            )
            st.caption(f"{duration(best.lines[-1].seconds)} of training so far")
        with columns[3]:
            st.metric("steps", f"{under_way.steps:,} / {under_way.facts.steps:,}", help=STATES)
            left = under_way.seconds_left
            rest = f", about {duration(left)} left" if under_way.state == "running" and left is not None else ""
            st.caption(escape_markdown(f"{under_way.name}: {under_way.state}{rest}"))


def runs_card(listed: Sequence[RunLog], chosen: Sequence[RunLog], view: RunsView, left_out: int) -> None:
    """The table of all runs in the folder; the chosen ones have their colours."""
    drawn = draw("runs", listed, view)
    colour_of = colours(chosen, view.theme)

    def body() -> None:
        shown = drawn.data[list(SHOWN)]
        styled = shown.style.apply(
            lambda row: [
                f"color: {colour_of[row['run']]}; font-weight: bold"
                if name == "run" and row["run"] in colour_of
                else ""
                for name in row.index
            ],
            axis=1,
        )
        number, unit = st.column_config.NumberColumn, view.unit
        st.dataframe(
            styled,
            key="runs_table",
            hide_index=True,
            height=min(320, 38 + 35 * len(shown)),
            column_config={
                "steps": number("steps", help="Steps done, according to the log.", format="localized"),
                "planned": number("of", help="Steps that the recipe asks for.", format="localized"),
                "loss": number(f"loss, {unit}", help="In the last line of training.", format="%.3g"),
                "validation_loss": number(f"validation loss, {unit}", help="In the last validation.", format="%.3g"),
                "tokens_per_second": number(
                    "training tokens/s", help="The median of the last 20 lines of training.", format="%.0f"
                ),
                "state": st.column_config.TextColumn("state", help=STATES),
            },
        )
        if left_out:
            st.caption(f"{left_out:,} older runs are left out. Choose a folder that holds fewer.")

    card(drawn, origin(listed, view), body=body)


def facts_card(runs: Sequence[RunLog], view: RunsView) -> None:
    """Facts and settings of the runs side by side, and each recipe."""
    drawn = draw("facts", runs, view)

    def body() -> None:
        table: pd.DataFrame = drawn.data
        if len(runs) > 1:
            only = st.toggle("Only differences", **linked("only_differs", True))
            table = table[table["differs"]] if only else table
        if table.empty:
            st.caption("The runs have the same facts and settings.")
        else:
            st.dataframe(table.drop(columns="differs"), key="facts_table", hide_index=True, height=320)
        for run in runs:
            with st.expander(f"Recipe of {escape_markdown(run.name)}"):
                st.code(recipe(run.path) or "This run has no recipe.yaml.", language="yaml", wrap_lines=True)

    card(drawn, origin(runs, view), body=body)


def checkpoints_card(runs: Sequence[RunLog]) -> None:
    """The choice of a checkpoint, and buttons for the pages that open it."""
    with st.container(border=True, key="card_checkpoints"):
        st.markdown("**Checkpoints**")
        st.caption(
            "Opens a checkpoint as model B on another page, and the run's base as model A if it can be opened. "
            "A LoRA adapter is merged into the base that it names."
        )
        with_checkpoints = [run for run in runs if run.look.checkpoints]
        if not with_checkpoints:
            st.caption("None of these runs has a complete checkpoint yet.")
            return
        with st.container(horizontal=True, vertical_alignment="bottom"):
            run = with_checkpoints[indexed_selectbox("Run", [run.name for run in with_checkpoints], "checkpoint_run")]
            newest = tuple(reversed(run.look.checkpoints))
            chosen = newest[indexed_selectbox("Checkpoint", [each.title for each in newest], "checkpoint")]
            for title, page in PAGES.items():
                if st.button(title, on_click=safely(_take), args=(run, chosen), key=f"open_{title}"):
                    st.switch_page(FOLDER_OF_PAGES / page)
        st.code(str(chosen.path.resolve()), language=None, wrap_lines=True)


def _take(run: RunLog, chosen: CheckpointRecord) -> None:
    """Submit the checkpoint and its base, and clear the revision and adapter of the models before."""
    submit(b=str(chosen.path.resolve()))
    st.session_state[ADAPTER["B"]] = st.session_state[REVISION["B"]] = ""
    if (base := _base(run)) is not None:
        commit = run.facts.base_revision or ""
        of_hub = is_repo_id(base) and find(base) is None and len(commit) == 40
        submit(a=base)
        st.session_state[ADAPTER["A"]], st.session_state[REVISION["A"]] = "", commit if of_hub else ""


def _base(run: RunLog) -> str | None:
    """A name that opens the run's base; None if the base was only a configuration, or cannot be found."""
    name = run.facts.base
    path = local_path(name)
    is_folder = path is not None and path.is_dir()
    return name if find(name) is not None or is_folder or (is_repo_id(name) and "/" in name) else None
