"""The parts of the uncertainty page: the finding with the strip, and folded figures and tables."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import streamlit as st

from analysis.figures.figure import Figure, visible
from analysis.figures.theme import LINE
from analysis.provenance import Provenance
from analysis.score_registry import DIFFERENCE, MEASURES, significant
from analysis.strips.uncertainty import comparison_strip
from analysis.uncertainty.figures import FIGURES, PAIRED, draw
from analysis.uncertainty.request import ComparisonQuery
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.summary import ComparisonSummary, signed, summarise
from analysis.uncertainty.tables import summary_table
from analysis.view import View
from app import cards
from app.error_net import fragment
from app.escape import escape_markdown
from app.state import pin, pinned
from app.submission import submit_document
from app.token_strip import TokenChoice, token_strip
from app.uncertainty.editing import edited
from app.widgets import row_table

EDITED = "edited"  # whether the reader has just written an alternative into the text
ABOUT_NUMBERS = (
    "The mean is per token of each model. The difference is per token if both models have the same tokens, and per "
    "byte of text otherwise, since a model with smaller tokens has less entropy at each of them. The interval is "
    "Student's t over the pieces of text in order. Neighbouring pieces are not independent; with too few pieces there "
    "is no interval. Bits per byte: the surprisal of the actual text, divided by its UTF-8 bytes, under A and under B."
)


@fragment
def figure_cards(query: ComparisonQuery, comparison: Comparison, shown: View) -> None:
    """The strip, and the folded figures below it. A pin redraws only these."""
    if st.session_state.pop(EDITED, False):
        st.rerun()  # the whole page, as its text is another one
    view = replace(shown, pinned=pinned())
    if view.lens == "change" and comparison.divergences is None and view.measure in ("kl_ab", "kl_ba", "js", "tv"):
        title = view.change.title
        st.info(
            f"{title} needs two models that read the same tokens of one vocabulary. The strip shows the difference."
        )
        view = replace(view, measure=DIFFERENCE)
    origin = query.origin(comparison, view)
    strip_card(comparison, view, origin)
    names = [name for name in FIGURES if name != "strip" and (comparison.cells is not None or name not in PAIRED)]
    pins = {"line": _from_line, "scatter": _from_scatter}
    for name in names:
        drawn = draw(name, comparison, view)
        body = partial(_changes_table, drawn, view) if name == "changes" else None
        cards.card(drawn, origin, body=body, pin_from=pins.get(name), folded=True)


def strip_card(comparison: Comparison, view: View, origin: Provenance) -> None:
    """The finding in one sentence, the four numbers behind it, and the strip."""
    summary = summarise(comparison, view.unit, score=view.score, measure=view.measure if view.lens == "change" else "")
    drawn = draw("strip", comparison, view)
    shown = comparison_strip(comparison, view)

    def pin_character(place: int | None) -> None:
        pin(shown.character(place))

    def edit(choice: TokenChoice) -> None:
        document = edited(comparison, choice)
        if document is not None:
            submit_document(document)
            st.session_state[EDITED] = True

    with st.container(border=True, key="card_strip", gap="xxsmall"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small", key="finding"):
            st.markdown(f"**{escape_markdown(summary.finding)}**", width="stretch")
            with st.container(width="content"):
                cards.export_menu(drawn, origin)
        token_strip(
            shown.strip,
            key="strip",
            pinned=shown.place(view.pinned),
            on_pin=pin_character,
            on_edit=edit if comparison.cells is not None and not view.with_template else None,
        )
        if summary.tokens_a and summary.tokens_b:
            st.caption(_numbers(comparison, summary), help=ABOUT_NUMBERS)
        notes = [f"{side}: {'; '.join(scored.notes)}." for side, scored in _sides(comparison) if scored.notes]
        if notes:
            st.caption(escape_markdown(" ".join(notes), longest=2000))


def _numbers(comparison: Comparison, summary: ComparisonSummary) -> str:
    """The four numbers that answer the page's question, on one line."""
    score, bits, mean = summary.score, summary.bits_per_byte, summary.mean(summary.score.name)
    unit = score.unit(summary.unit)
    parts = [
        f"{side} {escape_markdown(scored.facts.name, 40)} **{signed(value, score.signed)} {unit}**"
        for (side, scored), value in zip(_sides(comparison), (mean.a, mean.b), strict=True)
    ]
    parts.append(f"B − A **{signed(summary.difference.mean)} {unit}** per {summary.per}")
    if summary.paired:
        parts.append(f"bits per byte **{significant(bits.a)} / {significant(bits.b)}**")
    return f"Mean {score.title}: " + " · ".join(parts)


def role_tables(comparison: Comparison, view: View) -> None:
    """The summary for each role if the text has several, and the text that each model read."""
    cells = comparison.cells
    if cells is not None and len(set(cells.role.tolist())) > 1:
        cards.fold("roles", "By role", lambda: st.dataframe(summary_table(comparison, view.unit), hide_index=True))
    if comparison.a.encoded.chat or comparison.b.encoded.chat:
        cards.fold("read", "What each model read, template included", partial(_read_texts, comparison))


def _read_texts(comparison: Comparison) -> None:
    for side, scored in _sides(comparison):
        st.caption(f"{side} {escape_markdown(scored.facts.name)}")
        st.code(scored.encoded.text[:20_000], language=None, wrap_lines=True)


def _sides(comparison: Comparison) -> tuple[tuple[str, ScoredText], ...]:
    return ("A", comparison.a), ("B", comparison.b)


def _from_line(point: dict[str, Any]) -> int | None:
    return int(point["x"]) if "x" in point else None


def _from_scatter(point: dict[str, Any]) -> int | None:
    data = point.get("customdata")
    return int(data[0]) if data else None


def _changes_table(drawn: Figure, view: View) -> None:
    """The pieces of text that changed most; choosing a row pins it."""
    table, unit = drawn.data, view.shown.unit(view.unit)
    columns = {
        f"{view.score}_a": (f"A, {unit}", view.shown.meaning),
        f"{view.score}_b": (f"B, {unit}", view.shown.meaning),
        f"{view.score}_difference": (f"B − A, {unit}", view.shown.difference().meaning),
        **{name: (f"{m.title}, {m.unit(view.unit)}", m.meaning) for name, m in MEASURES.items()},
    }
    shown = table[["text", "start", *(name for name in columns if name in table)]]
    shown = shown.assign(text=table["text"].map(visible))
    place = -1 if view.pinned is None else view.pinned
    is_pinned = ((table["start"] <= place) & (place < table["end"])).to_dict()
    highlight = f"background-color: {LINE[view.theme]}; font-weight: bold"

    row_table(
        shown.style.apply(lambda row: [highlight if is_pinned[row.name] else ""] * len(row), axis=1),
        "changes_table",
        lambda row: pin(int(table["start"].iloc[row])),
        height=320,
        column_config={
            "start": st.column_config.NumberColumn("character", help="Where the piece starts in the text."),
            **{
                name: st.column_config.NumberColumn(label, help=text, format="%.3g")
                for name, (label, text) in columns.items()
            },
        },
    )
