"""The macro view of the attention page: an overview of all heads, one large map, and the text of a pinned query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis.attention.answer import origin
from analysis.attention.figures import draw
from analysis.attention.result import (
    MAPS,
    AttentionRequest,
    AttentionResult,
    AttentionSide,
    read_sides,
    stored_sides,
    with_rows,
)
from analysis.attention.statistics import STATISTICS
from analysis.attention.tables import finding, statistic_table
from analysis.score_registry import significant
from analysis.segmentation.segmented_text import MemoCache
from analysis.strips.attention import attention_strip
from app.attention import controls
from app.cards import card, fold, opening
from app.escape import escape_markdown
from app.run_query import ask, stored_or_none
from app.sidebar import SidebarInputs
from app.state import pin
from app.styles import theme
from app.token_strip import token_strip


def macro_view(inputs: SidebarInputs, line: DeltaGenerator) -> None:
    """Draw the controls in a line, and then the figures that they ask for."""
    with line:
        options = st.popover("Options", help="Segments, what a map is of, and its level.", width="content")
        request = controls.controls(inputs, options)
    if request is not None:
        sides = stored_sides(request, stored_or_none) or read_sides(request, ask)
        if sides is not None:
            _figures(request, sides, line, options)


def _figures(
    request: AttentionRequest, sides: tuple[AttentionSide, ...], line: DeltaGenerator, options: DeltaGenerator
) -> None:
    """The finding and the strip; folded below them the map, the overview of all heads, and its statistics."""
    memo: MemoCache = st.session_state.setdefault("attention_memo", MemoCache())
    memo.turn()
    overviews = [side.overview for side in sides if side.overview is not None]
    last = overviews[-1]
    layers, heads = (min(overview.statistics.shape[i] for overview in overviews) for i in (1, 2))
    with line:
        view = controls.view(options, layers, heads, last.strongest(), last.reading.merged, theme())
    result = AttentionResult(request, sides, view, kept=memo)
    if not result.opens:
        result = with_rows(result, ask)
        if any(side.rows is None for side in result.sides):
            return
    strip = attention_strip(result)
    opening(
        finding(result),
        draw("row", result),
        origin(result),
        body=lambda: token_strip(strip, key="attended", pinned=view.pinned, on_pin=pin),
    )
    fold("large_map", "The map: which position attends to which", lambda: _large_map(result))
    fold("all_heads", "All layers and heads", lambda: _all_heads(result))
    fold("attention_summary", "Where attention goes, over all heads", lambda: _summary(result))


def _summary(result: AttentionResult) -> None:
    """The four numbers that answer "where does attention go?", over all heads."""
    signed, unit = result.difference, result.reading.unit
    values = {name: result.statistic(name) for name in STATISTICS}

    def mean_of(name: str) -> str:
        known = values[name][~np.isnan(values[name])]
        mean = float(known.mean()) if len(known) else float("nan")
        return f"{'+' if signed and mean > 0 else ''}{significant(mean)}"

    def range_of(name: str) -> str:
        known = values[name][~np.isnan(values[name])]
        if not len(known):
            return f"a single {unit} has no other to attend to"
        low, high = float(known.min()), float(known.max())
        return f"mean over all heads, which range from {significant(low, 2)} to {significant(high, 2)}"

    whose = "B − A, " if signed else ""
    columns = st.columns(4)
    with columns[0]:
        st.metric(f"{whose}on the sink", mean_of("sink"), help=escape_markdown(STATISTICS["sink"].meaning))
        st.caption(escape_markdown(range_of("sink")))
    with columns[1]:
        st.metric(f"{whose}evenness", mean_of("evenness"), help=escape_markdown(STATISTICS["evenness"].meaning))
        st.caption(escape_markdown(range_of("evenness")))
    with columns[2]:
        st.metric(
            f"{whose}distance",
            f"{mean_of('distance')} {unit}s",
            help=escape_markdown(STATISTICS["distance"].meaning),
        )
        st.caption(escape_markdown(range_of("distance")))
    with columns[3]:
        induction = values["induction"]
        if np.isnan(induction).all():
            st.metric("strongest induction head", "none", help=escape_markdown(STATISTICS["induction"].meaning, 400))
            st.caption(f"no {unit} occurs twice")
        else:
            i, head = np.unravel_index(int(np.nanargmax(induction)), induction.shape)
            name = "largest gain in induction" if signed else "strongest induction head"
            where = f"layer {result.layers[int(i)]}, head {int(head)}"
            st.metric(name, where, help=escape_markdown(STATISTICS["induction"].meaning, 400))
            share = significant(float(induction[i, head]))
            st.caption(f"{share} of its attention goes to what followed earlier occurrences")
    notes = [f"{side.key}: {'; '.join(side.reading.notes)}." for side in result.sides if side.reading.notes]
    count = f"{len(result.reading):,} {unit}s; segments: {result.reading.strategy}."
    st.caption(escape_markdown(" ".join([count, *notes]), longest=2000))


def _all_heads(result: AttentionResult) -> None:
    """The maps or a statistic of all heads, and their table."""
    result = replace(result, view=replace(result.view, shown=controls.shown()))
    if result.view.shown == MAPS and not result.has_maps:
        sides = read_sides(result.request, ask)
        if sides is None:
            return
        result = replace(result, sides=sides)
    _overview_card(result)
    number = st.column_config.NumberColumn
    st.dataframe(
        statistic_table(result), hide_index=True, height=320,
        column_config={
            each.column: number(each.title, help=f"{each.meaning} In {each.unit}.", format="%.3g")
            for each in STATISTICS.values()
        },
    )  # fmt: skip


def _overview_card(result: AttentionResult) -> None:
    """The maps of all heads, or a statistic of each; a click chooses a head."""
    heads = result.sides[-1].overview.heads if result.sides[-1].overview is not None else 1

    def clicked(point: dict[str, Any]) -> int | None:
        if "x" not in point or "y" not in point:
            return None
        return result.layers[round(float(point["x"]))] * heads + round(float(point["y"]))

    card(
        draw("maps" if result.view.shown == MAPS else "statistics", result),
        origin(result),
        pin_from=clicked,
        on_pin=lambda at: controls.choose(*divmod(at, heads)),
    )


def _large_map(result: AttentionResult) -> None:
    """One map, whole or a part of it."""
    if result.opens:
        result = with_rows(result, ask)
        if any(side.rows is None for side in result.sides):
            return
    queries, keys = controls.window(result.size, result.query)
    result = replace(result, view=replace(result.view, queries=queries, keys=keys))
    step = -(-result.window.longest // result.most)
    first = result.window.q0

    def clicked(point: dict[str, Any]) -> int | None:
        if "y" not in point:
            return None
        row = first + (round(float(point["y"]) - (step - 1) / 2) - first) // step * step
        position = int(np.flatnonzero(result.of_rows() == row)[0])
        at = int(result.reading.source[position, 0])
        return at if at >= 0 else None

    card(draw("map", result), origin(result), pin_from=clicked)
