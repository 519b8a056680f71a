"""The macro view of the attention page: all layers and heads, one map large, and the text under a pinned query."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import streamlit as st

from analysis.attention.figures import draw
from analysis.attention.overview import Overview
from analysis.attention.overview_figures import statistic_table
from analysis.attention.positions import AttentionPositions
from analysis.attention.provenance import origin
from analysis.attention.request import LayerQuery, OverviewQuery, PositionsQuery, RolloutQuery
from analysis.attention.result import MAPS, AttentionRequest, AttentionResult, AttentionSide, check_comparable, rows_at
from analysis.attention.statistics import STATISTICS
from analysis.score_registry import significant
from analysis.segmentation.segmented_text import MemoCache
from app.attention import controls
from app.attention.strip import attention_strip
from app.cards import card
from app.error_net import fragment
from app.escape import escape_markdown
from app.run_query import QueryDisplay, run_or_get
from app.sidebar import SidebarInputs
from app.state import pin
from app.styles import theme
from app.token_strip import token_strip
from model.errors import MicroStepError

Known = tuple[PositionsQuery, AttentionPositions, Overview]  # of one model


def macro_view(inputs: SidebarInputs) -> None:
    """Draw the view: controls, then everything that they ask for."""
    asked = controls.controls(inputs)
    if asked.problem:
        st.error(escape_markdown(asked.problem))
    elif asked.request is None:
        st.info(escape_markdown(asked.hint))
    else:
        known = _known(asked.request)
        if known is not None:
            _lab(asked.request, known)


def _known(request: AttentionRequest) -> list[Known] | None:
    """Readings and overviews of the models; None while one is missing."""
    asked = request.readings()
    readings = [run_or_get(each) for each in asked]
    if None in readings:
        return None
    there = [reading for reading in readings if reading is not None]
    if len(there) == 2:
        try:
            check_comparable(there[0], there[1])
        except MicroStepError as error:
            st.error(escape_markdown(str(error)))
            return None
    found: list[Known] = []
    for each, reading in zip(asked, there, strict=True):
        question = OverviewQuery(each, request.pool)
        run = QueryDisplay[Overview]("reading", lambda load, told, q=question, r=reading: q.run(load, told, r))  # type: ignore[misc]
        overview = run_or_get(question, run)
        if overview is None:
            return None
        # the reading that the overview is of: an answer that was kept may be of an earlier one of the same text
        found.append((each, overview.reading, overview))
    return found


@fragment
def _lab(request: AttentionRequest, known: list[Known]) -> None:
    """Everything below the controls. Another head, a zoom or a pin redraws only this."""
    kept: MemoCache = st.session_state.setdefault("attention_kept", MemoCache())
    kept.turn()
    sides = tuple(AttentionSide(each.side, reading, overview) for each, reading, overview in known)
    reading, first = known[-1][1], _strongest(known[-1][2])
    layers, heads = (min(each[2].maps.shape[i] for each in known) for i in (0, 1))
    try:
        place = st.container()
        overview_at = st.container()
        shown = _shown(overview_at)
        view = controls.view(shown, layers, heads, first, reading.merged, theme())
        looked = AttentionResult(request, sides, view, kept=kept)
        with place:
            _summary(looked)
        with overview_at:
            _overview(looked)
        sides = tuple(_with_rows(side, each[0], looked) for side, each in zip(sides, known, strict=True))
        if any(side.rows is None for side in sides):
            return
        looked = replace(looked, sides=sides)
        queries, keys = controls.window(looked.size, looked.query)
        looked = replace(looked, view=replace(view, queries=queries, keys=keys))
        _large(looked)
    except MicroStepError as error:
        st.error(escape_markdown(str(error)))


def _shown(place: st.delta_generator.DeltaGenerator) -> str:
    with place:
        return controls.shown()


def _strongest(overview: Overview) -> tuple[int, int]:
    """Layer and head of the highest induction score, where a first visit begins."""
    found = np.nan_to_num(overview.of("induction"))
    layer, head = np.unravel_index(int(found.argmax()), found.shape)
    return overview.layers[int(layer)], int(head)


def _with_rows(side: AttentionSide, of: PositionsQuery, looked: AttentionResult) -> AttentionSide:
    """The side with its large map: the same object as long as it is the same map."""
    view = looked.view
    question = RolloutQuery(of, view.layer) if view.source == "rollout" else LayerQuery(of, view.layer)
    found = run_or_get(question, QueryDisplay("reading", lambda load, told: question.run(load, told, side.reading)))
    if found is None:
        return side
    key = "side", found, side.overview, view.source, view.head, view.level
    return looked.kept.get(key, lambda: replace(side, rows=rows_at(found, view)))


def _summary(looked: AttentionResult) -> None:
    """The figures that answer "where does attention go?", over all heads."""
    signed, unit = looked.difference, looked.reading.unit
    values = {name: looked.statistic(name) for name in STATISTICS}

    def said(name: str) -> str:
        known = values[name][~np.isnan(values[name])]
        mean = float(known.mean()) if len(known) else float("nan")
        return f"{'+' if signed and mean > 0 else ''}{significant(mean)}"

    def between(name: str) -> str:
        known = values[name][~np.isnan(values[name])]
        if not len(known):
            return f"one {unit} has nothing to choose from"
        low, high = float(known.min()), float(known.max())
        return f"mean over all heads; they run from {significant(low, 2)} to {significant(high, 2)}"

    whose = "B − A, " if signed else ""
    with st.container(border=True, key="card_attention_summary"):
        columns = st.columns(4)
        with columns[0]:
            st.metric(f"{whose}on the sink", said("sink"), help=escape_markdown(STATISTICS["sink"].meaning))
            st.caption(escape_markdown(between("sink")))
        with columns[1]:
            st.metric(f"{whose}evenness", said("evenness"), help=escape_markdown(STATISTICS["evenness"].meaning))
            st.caption(escape_markdown(between("evenness")))
        with columns[2]:
            st.metric(
                f"{whose}distance", f"{said('distance')} {unit}s", help=escape_markdown(STATISTICS["distance"].meaning)
            )
            st.caption(escape_markdown(between("distance")))
        with columns[3]:
            induction = values["induction"]
            if np.isnan(induction).all():
                st.metric(
                    "strongest induction head", "none", help=escape_markdown(STATISTICS["induction"].meaning, 400)
                )
                st.caption(f"no {unit} comes up twice")
            else:
                i, head = np.unravel_index(int(np.nanargmax(induction)), induction.shape)
                name = "largest gain in induction" if signed else "strongest induction head"
                where = f"layer {looked.layers[int(i)]}, head {int(head)}"
                st.metric(name, where, help=escape_markdown(STATISTICS["induction"].meaning, 400))
                share = significant(float(induction[i, head]))
                st.caption(f"{share} of its attention follows earlier occurrences")
        notes = [f"{side.key}: {'; '.join(side.reading.notes)}." for side in looked.sides if side.reading.notes]
        count = f"{len(looked.reading):,} {unit}s; segments: {looked.reading.strategy}."
        st.caption(escape_markdown(" ".join([count, *notes]), longest=2000))


def _overview(looked: AttentionResult) -> None:
    """The maps of all heads, or a statistic of each; a click chooses."""
    heads = looked.sides[-1].overview.maps.shape[1] if looked.sides[-1].overview is not None else 1

    def clicked(point: dict[str, Any]) -> int | None:
        if "x" not in point or "y" not in point:
            return None
        return looked.layers[round(float(point["x"]))] * heads + round(float(point["y"]))

    card(
        draw("maps" if looked.view.shown == MAPS else "statistics", looked),
        origin(looked),
        pin_from=clicked,
        on_pin=lambda at: controls.choose(*divmod(at, heads)),
    )
    with st.expander("Numbers of all heads"):
        st.dataframe(
            statistic_table(looked), hide_index=True, height=320,
            column_config={
                name: st.column_config.NumberColumn(each.title, help=f"{each.meaning} In {each.unit}.", format="%.3g")
                for name, each in STATISTICS.items()
            },
        )  # fmt: skip


def _large(looked: AttentionResult) -> None:
    """One map, and the text under the pinned query."""
    where = origin(looked)
    step = -(-looked.window.longest // looked.most)
    first = looked.window.q0

    def clicked(point: dict[str, Any]) -> int | None:
        if "y" not in point:
            return None
        row = first + (round(float(point["y"]) - (step - 1) / 2) - first) // step * step
        position = int(np.flatnonzero(looked.of_rows() == row)[0])
        at = int(looked.reading.source[position, 0])
        return at if at >= 0 else None

    card(draw("map", looked), where, pin_from=clicked)
    strip = attention_strip(looked)
    card(
        draw("row", looked),
        where,
        body=lambda: token_strip(strip, key="attended", pinned=looked.view.pinned, on_pin=pin),
    )
