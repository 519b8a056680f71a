"""Where does each strategy start a segment, and do the strategies, and two models, agree?"""

from dataclasses import replace
from typing import cast

import streamlit as st

from analysis.segmentation.comparison import store_bench, text_bench
from analysis.segmentation.corpus_view import from_store
from analysis.segmentation.request import Answered, CutRequest
from analysis.segmentation.segmented_text import MemoCache
from analysis.segmentation.strategy import labels
from analysis.segmentation.view import METRICS, CutView, Metric
from app.error_net import fragment
from app.escape import escape_markdown
from app.run_query import ask
from app.segmentation.cards import CHANGES, history_card, judged_cards, strip_card, summary, unstable_card, values_card
from app.segmentation.controls import SegmentationControls, controls
from app.segmentation.strategies import chosen, editor, entries
from app.segmentation.strategy_select import usable_rules
from app.sidebar import SidebarInputs
from app.state import pinned
from app.styles import theme
from app.widgets import option_of
from model.errors import MicroStepError
from model.hub.wrap_base import micro_step_info
from model.segmentation.rules import NO_MICRO_STEP

NOT_IN_A_STORE = "a store holds scores only, and this strategy needs a pass of the model"

inputs: SidebarInputs = st.session_state["inputs"]


def with_strategies(request: CutRequest) -> CutRequest:
    """The request with the strategies as they are now."""
    return replace(request, strategies=tuple(entry.strategy for entry in entries()))


@fragment
def figures(
    asked: SegmentationControls,
    base: CutRequest,
    first: Answered | None,
    second: Answered | None,
    usable: tuple[str, ...],
    why_not: str,
) -> None:
    """Everything below the controls. A moved parameter, a pin, or a solved target redraws only this."""
    memo: MemoCache = st.session_state.setdefault("segmentation_memo", MemoCache())
    memo.turn()
    request, unit = with_strategies(base), inputs.unit
    if not set(request.extras()) <= set(base.extras()):  # a strategy was added that needs a pass of the model
        st.rerun(scope="app")
    try:
        if asked.store is not None:
            bench = store_bench(request, asked.store, memo)
        elif first is not None:
            bench = text_bench(request, first, second, memo)
        else:
            return
    except MicroStepError as error:
        editor((), unit, request.max_length, usable, why_not)
        st.error(escape_markdown(str(error)))
        return
    editor(bench.judged, unit, request.max_length, usable, why_not)
    available = [cut.number for cut in bench.shown]
    waiting = [label for i, label in enumerate(labels(request.strategies)) if i not in available]
    if waiting:
        st.info(f"Not shown, since they need a pass of the model first: {', '.join(waiting)}.")
    if not available:
        return
    metric, change = option_of("metric", list(METRICS), "f1"), option_of("change", CHANGES, 0.05)
    number = chosen() if chosen() in available else available[0]
    view = CutView(unit, theme(), pinned(), number, cast(Metric, metric), change)
    summary(bench, view)
    strip_card(bench, view)
    values_card(bench, view)
    judged_cards(bench, view)
    unstable_card(bench, view, may_run=asked.store is None)
    if any(request.history in side.extras for side in bench.sides):
        history_card(bench, view)


asked = controls(inputs)
if asked.problem:
    st.error(escape_markdown(asked.problem))
elif asked.request is None:
    st.info(escape_markdown(asked.hint))
elif asked.store is not None:
    figures(asked, with_strategies(asked.request), None, None, from_store(), NOT_IN_A_STORE)
else:
    wanted = with_strategies(asked.request)
    found = wanted.answered(ask)
    if found is not None:
        usable = tuple(usable_rules(*(micro_step_info(spec.name) for _, spec in wanted.models)))
        other = found.other_precision(ask) if asked.other_precision else None
        figures(
            asked,
            wanted,
            found,
            other,
            usable,
            NO_MICRO_STEP,
        )
