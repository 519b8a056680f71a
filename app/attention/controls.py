"""The controls of the macro view: whose attention, under which segments; which layer, head, level and window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import streamlit as st

from analysis.attention.pooling import POOLS, Pool
from analysis.attention.result import CELLS, LEVELS, MAPS, SOURCES, AttentionRequest, AttentionView, Level, Source
from analysis.attention.statistics import STATISTICS
from analysis.segmentation.strategy import Strategy
from analysis.view import Theme
from app import state
from app.error_net import safely
from app.escape import escape_markdown
from app.sidebar import SidebarInputs
from app.widgets import NO_TEXT, default, segmented, segments_of
from model.errors import MicroStepError

A, B, DIFFERENCE = "A", "B", "B − A"
LAYER, HEAD = "layer", "head"
QUERIES, KEYS, LENGTH = "q", "k", "n"
SOURCE_NAMES = {"head": "head", "mean": "mean of heads", "rollout": "rollout"}


@dataclass(frozen=True)
class AttentionControls:
    """What the controls say: a request, or why there is none."""

    request: AttentionRequest | None
    problem: str = ""
    hint: str = ""


def controls(inputs: SidebarInputs) -> AttentionControls:
    """Draw what decides a run, and read it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        which = segmented(
            "Model", [A, B, DIFFERENCE], "of", A,
            help="Of the two in the sidebar. **B − A** needs the same tokens under both: what fine-tuning moved.",
        )  # fmt: skip
        strategy, cap = segments_of(
            inputs,
            "Where segments start, for the boundaries, the shares on segments, and what a micro_step model merges.",
        )
        pool = segmented(
            "A cell is", list(POOLS), "pool", "max",
            help="  \n".join(f"**{name}**: {said}." for name, said in POOLS.items()),
        )  # fmt: skip
    if inputs.problem:
        return AttentionControls(None, problem=inputs.problem)
    if inputs.text is None or inputs.a is None or inputs.b is None:
        return AttentionControls(None, hint=NO_TEXT)
    pairs = ((A, inputs.a), (B, inputs.b))
    models = tuple((key, spec) for key, spec in pairs if which in (key, DIFFERENCE))
    try:
        request = AttentionRequest(models, inputs.text, Strategy.parse(strategy), cap, pool=cast(Pool, pool))
    except MicroStepError as error:
        return AttentionControls(None, problem=str(error))
    return AttentionControls(request)


def shown() -> str:
    """What the overview shows: the maps, or a statistic."""
    titles = {MAPS: "maps", **{name: each.title for name, each in STATISTICS.items()}}
    default("shown", MAPS)
    found = st.pills(
        "Overview", list(titles), key="shown", bind="query-params", required=True,
        format_func=titles.__getitem__,
        help="  \n".join(f"**{each.title}**: {escape_markdown(each.meaning, 400)}" for each in STATISTICS.values()),
    )  # fmt: skip
    return MAPS if found is None else str(found)  # a link may have named none that there is


def view(shown: str, layers: int, heads: int, first: tuple[int, int], merged: bool, theme: Theme) -> AttentionView:
    """Draw what chooses the large map, and read it.

    Args:
        shown: what the overview shows.
        layers: of the model; no other layer can be chosen.
        heads: of the model.
        first: layer and head of a first visit.
        merged: positions are segments already.
        theme: the reader's.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        source = segmented(
            "Map of", list(SOURCES), "map", "head", format_func=SOURCE_NAMES.__getitem__,
            help="  \n".join(f"**{SOURCE_NAMES[name]}**: {escape_markdown(said)}." for name, said in SOURCES.items()),
        )  # fmt: skip
        layer = _number("Layer", LAYER, layers - 1, first[0])
        head = _number("Head", HEAD, heads - 1, first[1], disabled=source != "head")
        level = segmented(
            "Level", list(LEVELS), "level", "tokens", disabled=merged,
            help="  \n".join(f"**{name}**: {said}." for name, said in LEVELS.items())
            + ("  \nThis model's positions are segments already." if merged else ""),
        )  # fmt: skip
    kept = "tokens" if merged else level
    return AttentionView(
        shown, layer, head, cast(Source, source), cast(Level, kept), theme=theme, pinned=state.pinned()
    )


def window(size: int, query: int | None) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Draw the zoom, and read it: queries [from, to) and keys [from, to); None is all.

    Args:
        size: rows of the large map.
        query: the one that is pinned.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        length = _number(
            "Zoom: a side of", LENGTH, size, 0,
            help=f"Rows and columns of the part that is shown; 0 shows all. Up to {CELLS} a cell is a single weight.",
        )  # fmt: skip
        off = length == 0
        q = _number("Queries from", QUERIES, size - 1, 0, disabled=off)
        k = _number("Keys from", KEYS, size - 1, 0, disabled=off)
        st.button(
            "Zoom to the pin", disabled=query is None, key="zoom_pin", on_click=safely(_zoom), args=(size, query),
            help="The pinned query and what stands before it, in a part of that side.",
        )  # fmt: skip
        st.button("Whole map", disabled=off, key="zoom_all", on_click=safely(_zoom), args=(size, None))
    if off:
        return None, None
    return (q, min(size, q + length)), (k, min(size, k + length))


def _zoom(size: int, query: int | None) -> None:
    length = 0 if query is None else min(int(st.session_state.get(LENGTH) or CELLS // 4), size)
    begin = 0 if query is None else max(0, min(query + 1, size) - length)
    for key, value in ((LENGTH, length), (QUERIES, begin), (KEYS, begin)):
        st.session_state[key] = value


def choose(layer: int, head: int) -> None:
    """Look at another layer and head."""
    st.session_state[LAYER], st.session_state[HEAD], st.session_state["map"] = layer, head, "head"


def _number(label: str, key: str, most: int, first: int, **more: Any) -> int:
    """A whole number from 0 to `most`, also where a link or another model left a larger one."""
    default(key, min(first, most))
    if st.session_state.get(key) is not None and st.session_state[key] > most:
        st.session_state[key] = most
    return int(st.number_input(label, 0, most, key=key, bind="query-params", width=130, **more))
