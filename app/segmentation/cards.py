"""The cards of the segmentation page: their contents, and what a click in them does. All but the strip are folded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pandas as pd
import streamlit as st

from analysis.intervals import Estimate
from analysis.score_registry import significant
from analysis.segmentation.comparison import StrategyComparison, value_unit, why_words
from analysis.segmentation.figures import draw
from analysis.segmentation.provenance import origin
from analysis.segmentation.segmented_text import SegmentedText
from analysis.segmentation.strategy import labels, scale
from analysis.segmentation.view import METRICS, CutView, Metric
from analysis.strips.segmentation import segment_strip
from app import cards
from app.cards import card, fold
from app.error_net import safely
from app.escape import escape_markdown
from app.segmentation.strategies import choose, threshold_slider
from app.state import pin
from app.token_strip import token_strip
from app.widgets import row_table, segmented

CHANGES = (0.01, 0.05, 0.1, 0.2)


def strip_card(bench: StrategyComparison, view: CutView) -> None:
    """The finding in a sentence, and the token strip with a row for each segmentation."""
    drawn, strip = draw("segments", bench, view), segment_strip(bench, view)
    with st.container(key="finding"):
        st.markdown(escape_markdown(bench.finding(view.chosen), longest=400))
    token_strip(strip, key="segments", pinned=view.pinned, height=560, on_pin=pin)
    with st.container(horizontal=True, gap="small"):
        with st.container(width="content"):
            cards.export_menu(drawn, origin(bench, view))
        st.caption(escape_markdown(drawn.caption), width="stretch")
    notes = [f"{side.key}: {'; '.join(side.notes)}." for side in bench.sides if side.notes]
    if notes:
        st.caption(escape_markdown(" ".join(notes), longest=2000))


def _choose_shown() -> None:
    choose(st.session_state["curve_of"])


def values_card(bench: StrategyComparison, view: CutView) -> None:
    """The chosen strategy's values, with a slider for its threshold."""
    fold("threshold", "The values that decide, and the threshold", lambda: _values(bench, view))


def _values(bench: StrategyComparison, view: CutView) -> None:
    names = labels(bench.request.strategies)
    here = sorted({cut.number for cut in bench.shown})
    st.session_state["curve_of"] = view.chosen
    st.segmented_control(
        "Values of", here, key="curve_of", format_func=lambda i: names[i], required=True,
        on_change=safely(_choose_shown),
    )  # fmt: skip
    chosen = bench.chosen(view)
    top = max((float(np.nanmax(cut.found.value, initial=0.0)) for cut in chosen), default=0.0)
    threshold_slider(view.chosen, top, view.unit)
    card(draw("values", bench, view), origin(bench, view), pin_from=_place)


def judged_cards(bench: StrategyComparison, view: CutView) -> None:
    """Statistics, agreement, lengths and curves of the segmentations."""
    provenance = origin(bench, view)
    statistics = draw("statistics", bench, view)
    card(statistics, provenance, body=lambda: _statistics(statistics.data, bench, view), folded=True)
    fold("agreeing", "Agreement of strategies and models", lambda: _agreement(bench, view))
    card(draw("lengths", bench, view), provenance, folded=True)
    card(draw("curves", bench, view), provenance, folded=True)


def _agreement(bench: StrategyComparison, view: CutView) -> None:
    metric = segmented(
        "Agreement as", list(METRICS), "metric", "f1", format_func=lambda name: METRICS[name][0],
        help="  \n".join(f"**{title}**: {meaning}" for title, meaning in METRICS.values()),
    )  # fmt: skip
    shown = replace(view, metric=cast(Metric, metric))
    card(draw("agreement", bench, shown), origin(bench, shown))


def unstable_card(bench: StrategyComparison, view: CutView, may_run: bool) -> None:
    """Unstable boundaries, and a button for the run in another precision."""
    fold("unstable_boundaries", "Boundaries that change easily", lambda: _unstable(bench, view, may_run))


def _unstable(bench: StrategyComparison, view: CutView, may_run: bool) -> None:
    with st.container(horizontal=True, vertical_alignment="bottom"):
        change = segmented(
            "Small change of the parameter", CHANGES, "change", 0.05, format_func="{:.0%}".format,
            help="The parameter moves up and down by this share; whole numbers move by 1.",
        )  # fmt: skip
        if may_run and not bench.others:
            facts = bench.sides[0].facts
            other = "bfloat16" if facts.dtype == "float32" else "float32"
            tokens = sum(len(side) for side in bench.sides)
            if st.button(
                f"Compare with {other}", key="run_other",
                on_click=safely(st.session_state.__setitem__), args=("precision", True),
                help=f"Loads each model again in {other} and reads {tokens:,} tokens. Takes about as long as the "
                "first run.",
            ):  # fmt: skip
                st.rerun(scope="app")
    shown = replace(view, change=change)
    card(draw("unstable", bench, shown), origin(bench, shown), pin_from=_place)


def history_card(bench: StrategyComparison, view: CutView) -> None:
    """Entropy with limited and with full history."""
    card(draw("history", bench, view), origin(bench, view), pin_from=_place)


def _place(point: dict[str, Any]) -> int | None:
    return int(point["x"]) if "x" in point else None


def _statistics(table: pd.DataFrame, bench: StrategyComparison, view: CutView) -> None:
    """The table of segmentations; choosing a row draws its values. The last column describes the pinned token."""
    shown = table.drop(columns=["model", "strategy"])
    interval = [
        Estimate(*ends).ends()
        for ends in zip(*(table[f"mean_length{end}"] for end in ("", "_low", "_high")), strict=True)
    ]
    shown = shown.drop(columns=["mean_length_low", "mean_length_high"])
    shown.insert(shown.columns.get_loc("mean_length") + 1, "interval", interval)
    if view.pinned is not None:
        at_pin = {cut.name: _at(bench, cut, view) for cut in bench.shown}
        shown["pinned"] = [at_pin.get(name, "") for name in table["segmentation"]]
    numbers = {
        "tokens": ("tokens", "Without the prompt.", "%d"),
        "segments": ("segments", "Without the prompt.", "%d"),
        "mean_length": ("mean length", "Tokens per segment.", "%.3g"),
        "singletons": ("singletons", "Share of segments of one token.", "%.3g"),
        "at_cap": ("at M", "Share of segments of M tokens.", "%.3g"),
        "word_precision": ("word precision", "Share of boundaries that are word starts.", "%.3g"),
        "word_recall": ("word recall", "Share of word starts that are boundaries.", "%.3g"),
        "word_f1": ("word F1", "Twice the shared boundaries, divided by the sum of both counts.", "%.3g"),
    }

    row_table(
        shown,
        "statistics_table",
        lambda row: choose(bench.judged[row].number),
        column_config={
            "interval": st.column_config.TextColumn(
                "95%",
                help="Student's t over segments in order, or over a store's documents. None if there are too few.",
            ),
            "pinned": st.column_config.TextColumn("at the pinned character"),
            **{
                name: st.column_config.NumberColumn(label, help=text, format=form)
                for name, (label, text, form) in numbers.items()
            },
        },
    )


def _at(bench: StrategyComparison, cut: SegmentedText, view: CutView) -> str:
    """What a segmentation does at the pinned character: start or join, the value, and why."""
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
