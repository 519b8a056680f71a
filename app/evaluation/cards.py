"""The cards of the evaluation page: the report, samples side by side, and invalid answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st
from streamlit.elements.lib.column_types import ColumnConfig

from analysis.figures.figure import Figure, visible
from analysis.provenance import Provenance
from analysis.view import Theme
from app.cards import card
from app.escape import escape_markdown
from app.evaluation.controls import EvaluationControls
from app.evaluation.strip import sample_strip
from app.token_strip import token_strip
from app.widgets import row_table, stepper
from evals.report import figures, sample_figures
from evals.report.paired import difference
from evals.report.provenance import document_origin, invalid_origin, report_origin, sample_origin
from evals.report.score_rows import Evaluated, ScoreRow
from evals.report.side_by_side import KEYS, SampleSide, SideBySide, invalid
from evals.report.tables import TEXT_COLUMNS, TITLES, notes, with_error
from evals.samples import Sample

SAMPLE, ANSWER, UNREAD = "sample", "answer_number", "unread"
LONGEST = 20_000  # characters of a prompt or an answer that are sent to the browser
WIDTHS = {"tau": 45, "score": 85, "invalid": 70, "tokens / macro step": 155, "tokens / s": 80, "x base": 65}
ROW, MOST = 35, 320  # height of a table row, and of a table at most, in pixels


def summary(rows: Sequence[ScoreRow]) -> None:
    """The four numbers that say how good and how fast the models are on one benchmark."""
    share = rows[0].benchmark.higher_is_better
    best = max(rows, key=lambda row: row.score.value if share else -row.score.value)
    base = next((row for row in rows if row.tau is None or row.tau > 1), None)
    longest = max(rows, key=lambda row: row.tokens_per_macro_step)
    with st.container(border=True, key="card_summary"):
        columns = st.columns(4)
        with columns[0]:
            st.metric("best score", with_error(best.score, share), help=_PLUS_MINUS)
            alone = "" if base is None or base is best else f"; {base.name}: {with_error(base.score, share)}"
            st.caption(escape_markdown(f"{best.benchmark.metric}, {best.name}{alone}"))
        with columns[1]:
            st.metric("most tokens per macro step", f"{longest.tokens_per_macro_step:.2f}")
            st.caption(escape_markdown(f"{longest.name}: {with_error(longest.score, share)}"))
        with columns[2]:
            _fastest(rows)
        with columns[3]:
            counted = [(found.value, row) for row in rows if (found := row.invalid(row.benchmark.metric)) is not None]
            most = max(counted, key=lambda pair: pair[0], default=None)
            st.metric("most invalid", "none" if most is None else f"{most[0]:.1%}", help="Unparseable answers.")
            st.caption(
                "answers are not parsed"
                if most is None
                else escape_markdown(f"by {rows[0].benchmark.metric}, {most[1].name}")
            )


_PAIRED = (
    "Both runs answered the same documents, so the difference is taken document by document. The interval is"
    " Student's t over documents."
)
_PLUS_MINUS = "With one standard error over samples. A base alone is a plain model, or tau above 1."


def _fastest(rows: Sequence[ScoreRow]) -> None:
    if not rows[0].benchmark.generates:
        st.metric("highest tokens per second", "none")
        st.caption("this benchmark generates no text")
        return
    fastest = max(rows, key=lambda row: row.tokens_per_second)
    st.metric(
        "highest tokens per second", f"{fastest.tokens_per_second:,.0f}", help="Includes the time for reading prompts."
    )
    over = max((row for row in rows if row.speedup is not None), key=lambda row: row.speedup or 0, default=None)
    best = "" if over is None else f"; at best {over.speedup:.2f} x base, {over.name}"
    st.caption(escape_markdown(f"{fastest.name}{best}"))


def report_cards(rows: Sequence[ScoreRow], found: Mapping[str, Evaluated], theme: Theme) -> None:
    """The table of all benchmarks, and a figure for each."""
    table = figures.reading_table(rows)

    def body() -> None:
        text = st.column_config.TextColumn
        columns = {title: text(alignment="right", width=WIDTHS.get(title)) for title in TITLES[TEXT_COLUMNS:]}
        columns |= {title: text(width=WIDTHS[title]) for title in ("tau", "score")}
        order = [
            *(title for title in TITLES if title != "samples"),
            "samples",
        ]  # speed and cost are visible without scrolling
        st.dataframe(
            table,
            key="report_table",
            hide_index=True,
            height=_height(table, 460),
            column_order=order,
            column_config=columns,
        )
        st.caption(escape_markdown(" ".join(notes(rows)[1:]), longest=2000))

    card(figures.report(rows, theme), report_origin(found, rows), body=body)
    names = list(dict.fromkeys(row.benchmark.name for row in rows))
    for at in range(0, len(names), 2):
        for column, name in zip(st.columns(min(2, len(names))), names[at : at + 2], strict=False):
            mine = [row for row in rows if row.benchmark.name == name]
            with column:
                card(figures.score(mine, theme), report_origin(found, mine, name))


def sample_cards(chosen: EvaluationControls, theme: Theme) -> None:
    """The list of documents, and one of them with both answers."""
    beside, show = chosen.beside, chosen.show
    if not beside.alike:
        st.caption("The runs answered different documents. Compare only documents with the same prompt.")
    if (paired := difference(beside)) is not None:
        st.caption(escape_markdown(paired.spoken, longest=400), help=_PAIRED)
    drawn = sample_figures.documents(beside, show, theme)
    table = drawn.data
    if table.empty:
        st.info("No documents match this filter.")
        return
    _listed(drawn, document_origin(beside, show), table, SAMPLE)
    highest = max(beside.documents())
    document = stepper("Document", table["document"].tolist(), highest, SAMPLE, "Its index in the data set, from 0.")
    found = beside.of(document)
    _prompts(beside, found)
    answer = _which(found)
    come_from = sample_origin(beside, document, answer)
    pieces = sample_figures.written_answers(beside, document, answer)
    strip = sample_strip(pieces)
    if strip is not None:
        card(
            sample_figures.tokens(beside, document, answer, theme),
            come_from,
            body=lambda: token_strip(strip, key="sample_strip"),
        )
    else:
        st.caption("No text was written for this document: it was scored by likelihoods, or the answers are empty.")
    facts = sample_figures.facts(beside, document, theme)
    height = _height(facts.data, 2 * MOST)  # so that tokens per macro step are visible
    card(facts, come_from, body=lambda: st.dataframe(facts.data, key="fact_table", hide_index=True, height=height))
    if pieces:
        with st.expander("The answers as text"):
            for key, _, piece in pieces:
                st.caption(f"{key}, as scored")
                _text(piece.text)


def _which(found: Sequence[Sample | None]) -> int:
    """Draw the choice among several answers to a document, and read it; from 1."""
    most = max(len(sample.answers) for sample in found if sample is not None)
    if most < 2:
        return 1
    return int(
        st.number_input("Answer", 1, most, key=ANSWER, width=130, help="One of several answers to the same document.")
    )


def _prompts(beside: SideBySide, found: Sequence[Sample | None]) -> None:
    """The prompts; only one if they are equal."""
    prompts = [(key, sample.prompt) for key, sample in zip(KEYS, found, strict=False) if sample is not None]
    if len({text for _, text in prompts}) == 1:
        prompts = [("", prompts[0][1])]
    for key, text in prompts:
        if text:
            with st.expander("The prompt" + (key and f" of {key}")):
                _text(text)


def invalid_cards(side: SampleSide, way: str, theme: Theme) -> None:
    """The invalid answers with their reasons, and the text of one of them."""
    drawn = sample_figures.invalid(side, way, theme)
    table = drawn.data
    if table.empty:
        st.info(escape_markdown(f"No answer is invalid: {way} could read all {len(side.file.samples):,}."))
        return
    reasons = "; ".join(f"{why} ({count:,})" for why, count in table["reason"].value_counts().items())
    st.caption(
        escape_markdown(f"Of {len(side.file.samples):,} documents, {len(table):,} answers: {reasons}.", longest=1000)
    )
    shown = table.assign(text=table["text"].map(lambda text: visible(text, 80)))
    _listed(drawn, invalid_origin(side, way), shown, UNREAD)
    highest = max(side.samples)
    numbers = list(dict.fromkeys(table["document"].tolist()))
    document = stepper("Invalid document", numbers, highest, UNREAD, "Its index in the data set, from 0.")
    sample = side.samples[document]
    for number, why in invalid(sample, way):
        st.caption(escape_markdown(f"Invalid: {why}." if len(sample.answers) < 2 else f"Answer {number}: {why}."))
        for piece in sample.answers[number - 1 : number]:
            _text(piece.text)
    with st.expander("The prompt of the invalid answer"):
        _text(sample.prompt)


def _listed(drawn: Figure, origin: Provenance, table: pd.DataFrame, key: str) -> None:
    """A card with a table of documents; choosing a row shows its document."""
    columns = [name for name in table if not table[name].isin(["", None]).all()]

    def show(row: int) -> None:
        st.session_state[key] = int(table["document"].iloc[row])

    def body() -> None:
        row_table(
            table[columns],
            f"{key}_table",
            show,
            height=_height(table),
            column_config={name: _column(name) for name in columns},
        )

    card(drawn, origin, body=body)


def _column(name: str) -> ColumnConfig:
    """The heading of a column: "score_A" becomes "score, A"."""
    title = f"{name[:-2]}, {name[-1]}" if name[-2:] in ("_A", "_B") else name
    words = title.replace("tokens_per_macro_step", "tokens / macro step").replace("_", " ")
    if name.startswith(("score_", "tokens_per")):
        return st.column_config.NumberColumn(words, format="%.3g", width=len(words) * 7 + 10)
    return st.column_config.Column(words, width="medium" if name.startswith(("invalid", "reason")) else None)


def _text(text: str) -> None:
    """Show a text from a file literally."""
    st.code(text[:LONGEST] or " ", language=None, wrap_lines=True)
    if len(text) > LONGEST:
        st.caption(f"{len(text) - LONGEST:,} more characters are in the export.")


def _height(table: pd.DataFrame, most: int = MOST) -> int:
    return min(most, 3 + ROW * (1 + len(table)))
