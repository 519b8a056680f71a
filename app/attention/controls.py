"""The controls of the macro view: model, segments, layer, head, level, and the part of the map that is shown."""

from __future__ import annotations

from typing import Any, cast

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis.attention.pooling import POOLS, Pool
from analysis.attention.result import CELLS, LEVELS, MAPS, SOURCES, AttentionRequest, AttentionView, Level, Source
from analysis.attention.statistics import STATISTICS
from analysis.view import Theme
from app import state
from app.error_net import safely
from app.escape import escape_markdown
from app.segmentation.strategy_select import segmenter
from app.sidebar import SidebarInputs
from app.widgets import option_of, pills, segmented, whole

A, B, DIFFERENCE = "A", "B", "B − A"
LAYER, HEAD = "layer", "head"
QUERIES, KEYS, LENGTH = "q", "k", "n"
SOURCE_NAMES = {"head": "head", "mean": "mean of heads", "rollout": "rollout"}


def controls(inputs: SidebarInputs, options: DeltaGenerator) -> AttentionRequest | None:
    """Draw the controls of a run, those that rarely change in `options`, and read them; None without text or models."""
    which = segmented("Model", [A, B, DIFFERENCE], "of", A, label_visibility="collapsed", width="content")
    with options:
        st.caption("**B − A** shows what fine-tuning changed; both models must have the same tokens.")
        by = segmenter(inputs, "Used for the boundaries, the shares on segments, and what a micro_step model merges.")
        pool = segmented(
            "Cells show", list(POOLS), "pool", "max",
            help="  \n".join(f"**{name}**: {meaning}." for name, meaning in POOLS.items()),
        )  # fmt: skip
    ready = inputs.ready()
    if ready is None:
        return None
    a, b, text = ready
    pairs = ((A, a), (B, b))
    models = tuple((key, spec) for key, spec in pairs if which in (key, DIFFERENCE))
    return AttentionRequest(models, text, by, cast(Pool, pool))


def shown() -> str:
    """Draw the choice of what the overview shows, and read it: the maps, or a statistic."""
    titles = {MAPS: "maps", **{name: statistic.title for name, statistic in STATISTICS.items()}}
    return pills(
        "Overview", list(titles), "shown", MAPS, format_func=titles.__getitem__,
        help="  \n".join(f"**{each.title}**: {escape_markdown(each.meaning, 400)}" for each in STATISTICS.values()),
    )  # fmt: skip


def view(
    options: DeltaGenerator, layers: int, heads: int, first: tuple[int, int], merged: bool, theme: Theme
) -> AttentionView:
    """Draw the controls of the large map, and read them.

    Args:
        options: takes those that rarely change.
        layers: number of layers of the model.
        heads: number of heads of the model.
        first: layer and head that a first visit shows.
        merged: the model's positions are segments already.
        theme: the reader's.
    """
    source = option_of("map", list(SOURCES), "head", SOURCE_NAMES.__getitem__)
    st.markdown("Layer", width="content")
    layer = _number("Layer", LAYER, layers - 1, first[0], label_visibility="collapsed")
    st.markdown("Head", width="content")
    head = _number("Head", HEAD, heads - 1, first[1], disabled=source != "head", label_visibility="collapsed")
    with options:
        source = segmented(
            "Map of", list(SOURCES), "map", "head", format_func=SOURCE_NAMES.__getitem__,
            help="  \n".join(f"**{SOURCE_NAMES[key]}**: {escape_markdown(text)}." for key, text in SOURCES.items()),
        )  # fmt: skip
        level = segmented(
            "Level", list(LEVELS), "level", "tokens", disabled=merged,
            help="  \n".join(f"**{name}**: {meaning}." for name, meaning in LEVELS.items())
            + ("  \nThis model's positions are segments already." if merged else ""),
        )  # fmt: skip
    level = "tokens" if merged else level
    return AttentionView(
        MAPS, layer, head, cast(Source, source), cast(Level, level), theme=theme, pinned=state.pinned()
    )


def window(size: int, query: int | None) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Draw the zoom, and read it: queries [from, to) and keys [from, to), where None means all.

    Args:
        size: number of rows of the large map.
        query: the pinned one.
    """
    with st.container(horizontal=True, vertical_alignment="bottom"):
        length = _number(
            "Zoom size", LENGTH, size, 0,
            help=f"Rows and columns that are shown; 0 shows all. Up to {CELLS}, each cell is a single weight.",
        )  # fmt: skip
        off = length == 0
        q = _number("Queries from", QUERIES, size - 1, 0, disabled=off)
        k = _number("Keys from", KEYS, size - 1, 0, disabled=off)
        st.button(
            "Zoom to the pin", disabled=query is None, key="zoom_pin", on_click=safely(_zoom), args=(size, query),
            help="Shows the pinned query and the positions before it.",
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
    """Show another layer and head."""
    st.session_state[LAYER], st.session_state[HEAD], st.session_state["map"] = layer, head, "head"


def _number(label: str, key: str, highest: int, first: int, **more: Any) -> int:
    """Draw a box for 0 to `highest`, and read it; a larger number from a link or another model becomes `highest`."""
    return whole(label, 0, highest, min(first, highest), key, width=110, **more)
