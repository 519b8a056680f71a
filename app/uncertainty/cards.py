"""The cards of the uncertainty page: the summary, the figures, and the tables."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from analysis.figures.figure import visible
from analysis.figures.theme import LINE
from analysis.score_registry import significant
from analysis.uncertainty.figures import draw
from analysis.uncertainty.request import ComparisonQuery
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.summary import ComparisonSummary, interval
from analysis.uncertainty.tables import summary_table
from analysis.view import View
from app.cards import card
from app.error_net import fragment
from app.escape import escape_markdown
from app.state import pin, pinned
from app.token_strip import token_strip
from app.uncertainty.strip import comparison_strip
from app.widgets import row_table


def summary_card(comparison: Comparison, summary: ComparisonSummary) -> None:
    """The four numbers that answer the page's question, and the finding in one sentence."""
    score, gap, bits = summary.score, summary.difference, summary.bits_per_byte
    unit, mean = score.unit(summary.unit), summary.mean(score.name)
    sides = (
        ("A", comparison.a, mean.a, summary.tokens_a),
        ("B", comparison.b, mean.b, summary.tokens_b),
    )
    paired = comparison.cells is not None
    with st.container(border=True, key="card_summary"):
        columns = st.columns(4)
        for column, (side, scored, value, tokens) in zip(columns[:2], sides, strict=True):
            with column:
                name = escape_markdown(f"{side} {scored.facts.name}", 40)
                st.metric(name, f"{significant(value)} {unit}", help=f"Mean {score.title} per token.")
                st.caption(f"mean {score.title}, {tokens:,} tokens")
        with columns[2]:
            per_byte = f"{significant(bits.a)} / {significant(bits.b)}" if paired else "none"
            st.metric("bits per byte", per_byte, help="Surprisal of the actual text, divided by its UTF-8 bytes.")
            st.caption(f"A / B, over the {summary.bytes_a:,} bytes that both scored" if paired else "no text in common")
        with columns[3]:
            sign = "+" if gap.mean > 0 else ""
            st.metric(
                f"B − A, per {summary.per}",
                f"{sign}{significant(gap.mean)} {unit}",
                help=f"The difference in {score.title}. It is per token if both models have the same tokens, and per "
                "byte of text otherwise, since a model with smaller tokens has less entropy at each of them. The "
                "interval is Student's t over the pieces of text in order. Neighbouring pieces are not independent; "
                "with too few pieces there is no interval.",
            )
            st.caption(f"{score.title}; {interval(gap)}")
        st.markdown(escape_markdown(summary.finding))
        notes = [f"{side}: {'; '.join(scored.notes)}." for side, scored in _sides(comparison) if scored.notes]
        if notes:
            st.caption(escape_markdown(" ".join(notes), longest=2000))


@fragment
def figure_cards(query: ComparisonQuery, comparison: Comparison, view: View) -> None:
    """The figures below the summary. A pin redraws only these."""
    view = View(view.score, view.unit, view.theme, pinned(), view.role)
    origin = query.origin(comparison, view)
    strip = comparison_strip(comparison, view)
    card(
        draw("strip", comparison, view),
        origin,
        body=lambda: token_strip(strip, key="strip", pinned=view.pinned, on_pin=pin),
    )
    card(draw("line", comparison, view), origin, pin_from=_from_line)
    if comparison.cells is None:
        card(draw("distribution", comparison, view), origin)
        return
    left, right = st.columns(2)
    with left:
        card(draw("scatter", comparison, view), origin, pin_from=_from_scatter)
    with right:
        card(draw("distribution", comparison, view), origin)
    changes = draw("changes", comparison, view)
    card(changes, origin, body=lambda: _changes_table(changes.data, view))


def role_tables(comparison: Comparison, view: View) -> None:
    """The summary for each role if the text has several, and the text that each model read."""
    table = summary_table(comparison, view.unit)
    if len(table) > 1:
        with st.expander("By role"):
            st.dataframe(table, hide_index=True)
    if comparison.a.encoded.chat or comparison.b.encoded.chat:
        with st.expander("What each model read, template included"):
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


def _changes_table(table: pd.DataFrame, view: View) -> None:
    """The pieces of text that changed most; choosing a row pins it."""
    unit = view.shown.unit(view.unit)
    columns = {
        f"{view.score}_a": (f"A, {unit}", view.shown.meaning),
        f"{view.score}_b": (f"B, {unit}", view.shown.meaning),
        f"{view.score}_difference": (
            f"B − A, {unit}",
            "Summed over the tokens of the piece; probabilities are averaged.",
        ),
        "kl_ab": (f"KL(A‖B), {view.unit}", "Σ pA ln(pA / pB): large where A expects tokens that B does not."),
        "kl_ba": (f"KL(B‖A), {view.unit}", "Σ pB ln(pB / pA): large where B expects tokens that A does not."),
        "js": (f"JS, {view.unit}", "Jensen-Shannon divergence: symmetric, at most 1 bit per token."),
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
