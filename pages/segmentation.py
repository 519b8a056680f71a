"""Where does each strategy start a segment, and do the strategies, and two models, agree?"""

from dataclasses import replace

import streamlit as st

from analysis.segmentation.comparison import store_bench, text_bench
from analysis.segmentation.corpus_view import from_store
from analysis.segmentation.request import Answered, CutRequest
from analysis.segmentation.segmented_text import MemoCache, SegmentedText
from analysis.segmentation.strategy import labels
from analysis.segmentation.view import CutView
from app.cards import fold
from app.error_net import fragment
from app.escape import escape_markdown
from app.run_query import ask
from app.segmentation.cards import history_card, judged_cards, strip_card, unstable_card, values_card
from app.segmentation.controls import SegmentationControls, controls
from app.segmentation.strategies import chosen, editor, entries, line_messages, strategy_line
from app.segmentation.strategy_select import usable_rules
from app.sidebar import SidebarInputs
from app.state import pinned
from app.styles import theme
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
    """Everything below the line of controls. A pin, a fold or a solved target redraws only this."""
    memo: MemoCache = st.session_state.setdefault("segmentation_memo", MemoCache())
    memo.turn()
    request, unit = with_strategies(base), inputs.unit
    if request.strategies != base.strategies:  # changed below: the line above shows it, and a model may have to run
        st.rerun(scope="app")

    def strategies(judged: tuple[SegmentedText, ...]) -> None:
        title = "Strategies: add, change, and solve for a mean length"
        fold("strategies", title, lambda: editor(judged, unit, request.max_length, usable, why_not))

    try:
        if asked.store is not None:
            bench = store_bench(request, asked.store, memo)
        elif first is not None:
            bench = text_bench(request, first, second, memo)
        else:
            return
    except MicroStepError as error:
        st.error(escape_markdown(str(error)))
        strategies(())
        return
    available = [cut.number for cut in bench.shown]
    waiting = [label for i, label in enumerate(labels(request.strategies)) if i not in available]
    if waiting:
        st.info(f"Not shown, since they need a pass of the model first: {', '.join(waiting)}.")
    if not available:
        strategies(bench.judged)
        return
    number = chosen() if chosen() in available else available[0]
    view = CutView(unit, theme(), pinned(), number)
    strip_card(bench, view)
    strategies(bench.judged)
    if any(request.history in side.extras for side in bench.sides):
        history_card(bench, view)
    values_card(bench, view)
    judged_cards(bench, view)
    unstable_card(bench, view, may_run=asked.store is None)


with st.container(gap="xxsmall", key="segmentation"):
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="strategy_line"):
        place = st.container(horizontal=True, vertical_alignment="center", gap="small", width="content")
        asked = controls(inputs)
    if asked.store is not None:
        usable, why_not = from_store(), NOT_IN_A_STORE
    else:
        models = asked.request.models if asked.request is not None else ()
        usable, why_not = tuple(usable_rules(*(micro_step_info(spec.name) for _, spec in models))), NO_MICRO_STEP
    with place:
        strategy_line(inputs.unit, usable, why_not)
    line_messages()
    if asked.said:
        st.caption(escape_markdown(asked.said))
    if asked.problem:
        st.error(escape_markdown(asked.problem))
    elif asked.request is None:
        st.info(escape_markdown(asked.hint))
    else:
        wanted = with_strategies(asked.request)
        found = None if asked.store is not None else wanted.answered(ask)
        if found is not None or asked.store is not None:
            other = found.other_precision(ask) if found is not None and asked.other_precision else None
            figures(asked, wanted, found, other, usable, why_not)
