"""Where is each model unsure of the next token, and what did fine-tuning change?"""

from typing import Any

import pandas as pd
import streamlit as st

from analysis.figures.figure import visible
from analysis.figures.theme import LINE
from analysis.score_registry import SCORES, significant
from analysis.uncertainty.compare import Comparison
from analysis.uncertainty.figures import draw
from analysis.uncertainty.request import ComparisonQuery
from analysis.uncertainty.scoring import ScoredText
from analysis.uncertainty.summary import ComparisonSummary, summarise, summary_table
from analysis.view import View
from app.cards import card
from app.error_net import fragment, safely
from app.escape import escape_markdown
from app.run_query import run_or_get
from app.sidebar import SidebarInputs
from app.state import pin, pinned
from app.styles import theme
from app.token_strip import token_strip
from app.uncertainty.strip import comparison_strip
from app.widgets import NO_TEXT
from model.scoring.continuation import Sampling

inputs: SidebarInputs = st.session_state["inputs"]
st.title("Uncertainty", anchor=False)
st.caption("Where each model is unsure of the next token, on one text. A above, B below, aligned by character.")


def controls() -> tuple[str, int, Sampling]:
    """The page's own controls: which score is drawn, and whose text is scored."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        score = st.segmented_control(
            "Score",
            list(SCORES),
            default="entropy",
            key="score",
            format_func=lambda name: SCORES[name].title,
            bind="query-params",
            required=True,
            help="  \n".join(f"**{s.title}**: {s.meaning}" for s in SCORES.values()),
        )
        mode = st.segmented_control(
            "Scored text",
            ["given", "own"],
            default="given",
            key="mode",
            format_func={"given": "the text", "own": "own continuations"}.__getitem__,
            bind="query-params",
            required=True,
            help="**the text**: both models score the same text. **own continuations**: each model continues the "
            "text, and its own tokens are scored as it writes them.",
        )
        new_tokens, sampling = 0, Sampling()
        if mode == "own":
            new_tokens = int(st.number_input("New tokens", 1, 2000, 60, key="new_tokens", bind="query-params"))
            temperature = float(
                st.number_input(
                    "Temperature", 0.0, 5.0, 0.0, 0.1, key="temperature", bind="query-params",
                    help="0 is greedy. Scores are always those of the model itself, before the temperature.",
                )
            )  # fmt: skip
            top_p = float(st.number_input("Top-p", 0.05, 1.0, 1.0, 0.05, key="top_p", bind="query-params"))
            seed = int(st.number_input("Seed", 0, 2**31 - 1, 0, key="seed", bind="query-params"))
            sampling = Sampling(temperature, top_p, seed)
    return str(score), new_tokens, sampling


def summary_row(comparison: Comparison, summary: ComparisonSummary) -> None:
    """The four figures that answer the question, and the finding in one sentence."""
    unit, gap, bits = summary.unit, summary.difference, summary.bits_per_byte
    sides = (
        ("A", comparison.a, summary.entropy.a, summary.confidence.a, summary.tokens_a),
        ("B", comparison.b, summary.entropy.b, summary.confidence.b, summary.tokens_b),
    )
    paired = comparison.cells is not None
    with st.container(border=True, key="card_summary"):
        columns = st.columns(4)
        for column, (side, scored, entropy, confidence, tokens) in zip(columns[:2], sides, strict=True):
            with column:
                name = escape_markdown(f"{side} {scored.facts.name}", 40)
                st.metric(name, f"{significant(entropy)} {unit}", help="Mean entropy per token.")
                st.caption(f"mean entropy, {tokens:,} tokens; mean confidence {significant(confidence)}")
        with columns[2]:
            per_byte = f"{significant(bits.a)} / {significant(bits.b)}" if paired else "none"
            st.metric("bits per byte", per_byte, help="Surprisal of the text that came, over its UTF-8 bytes.")
            st.caption(f"A / B, over the {summary.bytes_a:,} bytes that both scored" if paired else "no text in common")
        with columns[3]:
            sign = "+" if gap.mean > 0 else ""
            st.metric(
                f"B − A, per {summary.per}",
                f"{sign}{significant(gap.mean)} {unit}",
                help="Difference in entropy. Per token where both have the same tokens; else per byte of text, since "
                "the model that cuts text finer has less entropy at each token. Interval: Student's t over the "
                "pieces in their order, whose neighbours are not independent; none where they are too few.",
            )
            st.caption(f"entropy; {summary.interval}")
        st.markdown(escape_markdown(summary.finding))
        notes = [f"{side}: {'; '.join(scored.notes)}." for side, scored in _sides(comparison) if scored.notes]
        if notes:
            st.caption(escape_markdown(" ".join(notes), longest=2000))


def _sides(comparison: Comparison) -> tuple[tuple[str, ScoredText], ...]:
    return ("A", comparison.a), ("B", comparison.b)


@fragment
def results(request: ComparisonQuery, comparison: Comparison, view: View) -> None:
    """Everything below the summary; a pin redraws only this."""
    view = View(view.score, view.unit, view.theme, pinned(), view.role)
    origin = request.origin(comparison, view)
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
    changed = draw("changes", comparison, view)
    card(changed, origin, body=lambda: _changes(changed.data, view))


def _from_line(point: dict[str, Any]) -> int | None:
    return int(point["x"]) if "x" in point else None


def _from_scatter(point: dict[str, Any]) -> int | None:
    data = point.get("customdata")
    return int(data[0]) if data else None


def _changes(table: pd.DataFrame, view: View) -> None:
    """The pieces that changed most; choosing a row pins it."""
    unit = view.shown.unit(view.unit)
    heads = {
        f"{view.score}_a": (f"A, {unit}", view.shown.meaning),
        f"{view.score}_b": (f"B, {unit}", view.shown.meaning),
        f"{view.score}_difference": (
            f"B − A, {unit}",
            "Sums over the tokens of the piece; of probabilities, means.",
        ),
        "kl_ab": (f"KL(A‖B), {view.unit}", "Σ pA ln(pA / pB): what A expects and B does not."),
        "kl_ba": (f"KL(B‖A), {view.unit}", "Σ pB ln(pB / pA): what B expects and A does not."),
        "js": (f"JS, {view.unit}", "Jensen-Shannon divergence: symmetric, at most 1 bit a token."),
    }
    kept = ["text", "start", *(name for name in heads if name in table)]

    shown = table[kept].assign(text=table["text"].map(visible))
    at = -1 if view.pinned is None else view.pinned
    pins = ((table["start"] <= at) & (at < table["end"])).to_dict()
    mark = f"background-color: {LINE[view.theme]}; font-weight: bold"

    def chosen() -> None:
        rows = st.session_state["changes_table"]["selection"]["rows"]
        if rows:
            pin(int(table["start"].iloc[rows[0]]))

    st.dataframe(
        shown.style.apply(lambda row: [mark if pins[row.name] else ""] * len(row), axis=1),
        key="changes_table",
        on_select=safely(chosen),
        selection_mode="single-row",
        hide_index=True,
        height=320,
        column_config={
            "start": st.column_config.NumberColumn("character", help="Where the piece starts in the text."),
            **{
                name: st.column_config.NumberColumn(label, help=text, format="%.3g")
                for name, (label, text) in heads.items()
            },
        },
    )


def roles(comparison: Comparison, view: View) -> None:
    """The same figures for each role, where the text has several, and what each model really read."""
    table = summary_table(comparison, view.unit)
    if len(table) > 1:
        with st.expander("By role"):
            st.dataframe(table, hide_index=True)
    if comparison.a.encoded.chat or comparison.b.encoded.chat:
        with st.expander("What each model read, template included"):
            for side, scored in _sides(comparison):
                st.caption(f"{side} {escape_markdown(scored.facts.name)}")
                st.code(scored.encoded.text[:20_000], language=None, wrap_lines=True)


score, new_tokens, sampling = controls()
if inputs.problem:
    st.error(escape_markdown(inputs.problem))
elif inputs.text is None or inputs.a is None or inputs.b is None:
    st.info(NO_TEXT)
else:
    asked = ComparisonQuery(inputs.a, inputs.b, inputs.text, new_tokens, sampling)
    found = run_or_get(asked)
    if found is not None:
        shown = View(score, inputs.unit, theme(), pinned())
        summary_row(found, summarise(found, inputs.unit))
        results(asked, found, shown)
        roles(found, shown)
