"""The cards of the segmentation page: what they hold, and what a click in them does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from analysis.intervals import Estimate
from analysis.score_registry import significant
from analysis.segmentation.comparison import METRICS, CutView, StrategyComparison, value_unit, why_words
from analysis.segmentation.figures import draw
from analysis.segmentation.provenance import origin
from analysis.segmentation.segmented_text import SegmentedText
from analysis.segmentation.strategy import labels, scale
from app.cards import card
from app.error_net import safely
from app.escape import escape_markdown
from app.segmentation.strategies import choose, threshold_slider
from app.segmentation.strip import segment_strip
from app.state import pin
from app.token_strip import token_strip

CHANGES = (0.01, 0.05, 0.1, 0.2)


def summary(bench: StrategyComparison, view: CutView) -> None:
    """The figures that answer "how long, and do they agree?", of the chosen strategy."""
    judged = [cut for cut in bench.judged if cut.number == view.chosen]
    with st.container(border=True, key="card_cut_summary"):
        columns = st.columns(4)
        for column, cut in zip(columns, judged, strict=False):
            mean, counted = bench.mean_length(cut), bench.statistics(cut)
            with column:
                st.metric(
                    escape_markdown(cut.name),
                    f"{significant(mean.mean)} tokens",
                    help="Mean segment length, prompt left out.",
                )
                st.caption(f"a segment; {mean.ends(lead='95% ')}; {counted.segments:,} segments")
        rest = columns[len(judged) :]
        if len(judged) == 2:
            found, between = bench.agreement(judged[0], judged[1])
            with rest[0]:
                st.metric(
                    "A and B, F1", significant(found.f1), help="Of their boundaries: 1 is the same cut, 0 none shared."
                )
                st.caption(f"shared boundaries, over {between}: do both cut at the same places?")
        if judged and (words := bench.statistics(judged[0]).words) is not None:
            with rest[-1]:
                st.metric("Word starts, F1", significant(words.f1), help="Boundaries against the starts of words.")
                st.caption(f"of {escape_markdown(judged[0].name)}; precision {significant(words.precision)}")
        notes = [f"{side.key}: {'; '.join(side.notes)}." for side in bench.sides if side.notes]
        if notes:
            st.caption(escape_markdown(" ".join(notes), longest=2000))


def strip_card(bench: StrategyComparison, view: CutView) -> None:
    """The interlinear strip, a row a cut."""
    strip = segment_strip(bench, view)
    card(
        draw("segments", bench, view),
        origin(bench, view),
        body=lambda: token_strip(strip, key="segments", pinned=view.pinned, height=560, on_pin=pin),
    )


def _choose_shown() -> None:
    choose(st.session_state["curve_of"])


def values_card(bench: StrategyComparison, view: CutView) -> None:
    """The chosen strategy's values, with the slider that moves its bar."""
    names = labels(bench.request.strategies)
    here = sorted({cut.number for cut in bench.shown})
    with st.container(border=True, key="card_threshold"):
        st.session_state["curve_of"] = view.chosen
        st.segmented_control(
            "What decides, for", here, key="curve_of", format_func=lambda i: names[i], required=True,
            on_change=safely(_choose_shown),
        )  # fmt: skip
        chosen = bench.chosen(view)
        top = max((float(np.nanmax(cut.found.value, initial=0.0)) for cut in chosen), default=0.0)
        threshold_slider(view.chosen, top, view.unit)
    card(draw("values", bench, view), origin(bench, view), pin_from=_place)


def judged_cards(bench: StrategyComparison, view: CutView) -> None:
    """Statistics, agreement, lengths and curves, of what is judged."""
    where = origin(bench, view)
    drawn = draw("statistics", bench, view)
    card(drawn, where, body=lambda: _statistics(drawn.data, bench, view))
    st.segmented_control(
        "Agreement as", list(METRICS), default="f1", key="metric", bind="query-params", required=True,
        format_func=lambda name: METRICS[name][0],
        help="  \n".join(f"**{title}**: {meaning}" for title, meaning in METRICS.values()),
    )  # fmt: skip
    left, right = st.columns(2)
    with left:
        card(draw("agreement", bench, view), where)
    with right:
        card(draw("lengths", bench, view), where)
    card(draw("curves", bench, view), where)


def unstable_card(bench: StrategyComparison, view: CutView, may_run: bool) -> None:
    """Unstable boundaries, and the run that shows those of the other precision."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.segmented_control(
            "Small change of the parameter", CHANGES, default=0.05, key="change", required=True,
            format_func=lambda share: f"{share:.0%}", help="Up and down, as a share of it; whole numbers by 1.",
        )  # fmt: skip
        if may_run and not bench.others:
            facts = bench.sides[0].facts
            other = "bfloat16" if facts.dtype == "float32" else "float32"
            tokens = sum(len(side) for side in bench.sides)
            if st.button(
                f"Compare with {other}", key="run_other",
                on_click=safely(st.session_state.__setitem__), args=("precision", True),
                help=f"Loads each model again, in {other}, and reads {tokens:,} tokens: about as the first run.",
            ):  # fmt: skip
                st.rerun(scope="app")
    card(draw("unstable", bench, view), origin(bench, view), pin_from=_place)


def history_card(bench: StrategyComparison, view: CutView) -> None:
    """Entropy under a limited history beside the full one."""
    card(draw("history", bench, view), origin(bench, view), pin_from=_place)


def _place(point: dict[str, Any]) -> int | None:
    return int(point["x"]) if "x" in point else None


def _statistics(table: pd.DataFrame, bench: StrategyComparison, view: CutView) -> None:
    """The table of cuts; choosing a row draws its values, and the pinned token stands at its end."""
    shown = table.drop(columns=["model", "strategy"])
    interval = [
        Estimate(*ends).ends()
        for ends in zip(*(table[f"mean_length{each}"] for each in ("", "_low", "_high")), strict=True)
    ]
    shown = shown.drop(columns=["mean_length_low", "mean_length_high"])
    shown.insert(shown.columns.get_loc("mean_length") + 1, "interval", interval)
    if view.pinned is not None:
        at_pin = {cut.name: _at(bench, cut, view) for cut in bench.shown}
        shown["pinned"] = [at_pin.get(name, "") for name in table["cut"]]
    numbers = {
        "tokens": ("tokens", "Outside the prompt.", "%d"),
        "segments": ("segments", "Outside the prompt.", "%d"),
        "mean_length": ("mean length", "Tokens a segment.", "%.3g"),
        "singletons": ("singletons", "Share of segments of one token.", "%.3g"),
        "at_cap": ("at the cap", "Share of segments of M tokens.", "%.3g"),
        "word_precision": ("word precision", "Share of boundaries that are starts of words.", "%.3g"),
        "word_recall": ("word recall", "Share of the starts of words that are boundaries.", "%.3g"),
        "word_f1": ("word F1", "2 x shared / both numbers of boundaries.", "%.3g"),
    }

    def picked() -> None:
        rows = st.session_state["statistics_table"]["selection"]["rows"]
        if rows:
            choose(bench.judged[rows[0]].number)

    st.dataframe(
        shown,
        key="statistics_table",
        on_select=safely(picked),
        selection_mode="single-row",
        hide_index=True,
        column_config={
            "interval": st.column_config.TextColumn(
                "95%", help="Student's t over segments in their order; of a store, over documents. None of too few."
            ),
            "pinned": st.column_config.TextColumn("at the pinned character"),
            **{
                name: st.column_config.NumberColumn(label, help=text, format=form)
                for name, (label, text, form) in numbers.items()
            },
        },
    )


def _at(bench: StrategyComparison, cut: SegmentedText, view: CutView) -> str:
    """What a cut does at the pinned character."""
    side, place = cut.side, view.pinned or 0
    tokens = np.flatnonzero((side.start <= place) & (place < side.end))
    if not len(tokens):
        return ""
    token = int(tokens[0])
    rule, value = cut.strategy.rule, float(cut.found.value[token])
    why = why_words(cut, view.unit)[int(bench.reasons(cut)[token])]
    shown = significant(value * scale(rule.unit, view.unit))
    starts = "starts" if cut.found.starts[token] else "joins"
    return f"{starts}; {rule.value} {shown} {value_unit(rule, view.unit)}; {why}"
