"""The micro view of the attention page: what the micro decoder attends to, in one segment and over a text."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis.attention.evenness.statistics import BAR
from analysis.attention.micro.figures import draw
from analysis.attention.micro.options import MicroView
from analysis.attention.micro.provenance import origin
from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.result import MicroAttention
from analysis.attention.micro.tables import finding, segment_figures
from analysis.figures.figure import visible
from analysis.score_registry import significant
from app.attention.micro_controls import SEGMENT, chosen_layer, chosen_segment, controls, selection
from app.cards import card, fold, opening
from app.error_net import fragment
from app.escape import escape_markdown
from app.run_query import QueryDisplay, run_or_get
from app.sidebar import SidebarInputs
from app.state import pin
from app.styles import theme
from app.token_strip import Detail, Legend, Strip, TokenRow, token_strip


def micro_view(inputs: SidebarInputs, line: DeltaGenerator) -> None:
    """Draw the controls in a line, and then what they ask for."""
    ready = inputs.ready()
    if ready is None:
        return
    with line:
        request = controls(inputs, *ready)
    result = run_or_get(request, QueryDisplay("reading"))
    if result is not None:
        _figures(request, result)


def _summary(result: MicroAttention) -> None:
    """The four numbers that answer "is all of the context used?", and the caveats."""
    sums, k = result.sums, result.states
    effective, even = sums.effective, sums.figure("evenness").at()
    share, largest = sums.figure("context_share").at(), sums.figure("largest").at()
    columns = st.columns(4)
    with columns[0]:
        st.metric(
            "effective context states",
            f"{significant(effective.mean)} of {k}",
            help="exp H of a head's weights over the context states, averaged over segments, layers, heads and "
            f"micro positions. From {significant(BAR * k)} on, the states count as fairly evenly used.",
        )
        st.caption(effective.ends(lead="95% "))
    with columns[1]:
        evenness = significant(even.mean) if k > 1 else "not defined"
        st.metric("evenness", evenness, help="H / ln K: 1 is perfectly even, 0 is a single state. Undefined if K is 1.")
        of_mean = significant(sums.effective_of_mean.mean)
        st.caption(f"{even.ends(lead='95% ')}; mean over heads: {of_mean} of {k}")
    with columns[2]:
        st.metric("attention on the context", f"{share.mean:.0%}", help="The rest is on the segment's own tokens.")
        st.caption(f"{share.ends('{:.0%}'.format, '95% ')}; {len(result.first):,} segments")
    with columns[3]:
        top = int(np.argmax(sums.largest_at.mean))
        layer = result.micro.context_layers[top]
        st.metric(
            "largest share of a state",
            f"{largest.mean:.0%}",
            help=f"The share of a head's weight on the context that goes to its most attended state; {1 / k:.0%} "
            "if all are used evenly.",
        )
        st.caption(f"most often layer {layer}, in {sums.largest_at.mean[top]:.0%} of queries")
    notes = [f"segments: {result.cut}", *(note for note in result.notes if not note.startswith("untrained"))]
    st.caption(escape_markdown(f"{result.facts.name}: {'; '.join(notes)}. {sums.units.meaning}.", longest=2000))


@fragment
def _figures(request: MicroRequest, result: MicroAttention) -> None:
    """The figures below the summary. Another segment or layer redraws only these."""
    chosen = chosen_segment(result)
    view = MicroView(theme(), chosen_layer(result), chosen)
    provenance, strip = origin(request, result, view), _strip(result)
    place = None if chosen is None else int(result.encoded.start[result.first[chosen]])
    if result.untrained:
        st.markdown(
            "**Untrained.** The micro decoder is a copy of the base's last layers, as at the start of training. "
            "This says nothing about trained models. For a trained one, choose micro-step-tiny at the top of the page."
        )
    opening(
        f"Are all context states used fairly evenly? {finding(result.sums)}",
        draw("micro_segments", result, view),
        provenance,
        body=lambda: token_strip(strip, key="micro_strip", pinned=place, height=300, on_pin=partial(_picked, result)),
    )
    fold("micro_summary", "How evenly the context is used", lambda: _summary(result))
    fold("weights", "Weights of a layer, in one segment or on average", lambda: _weights(request, result))
    card(draw("micro_evenness", result, view), provenance, folded=True)
    card(draw("micro_shares", result, view), provenance, folded=True)


def _weights(request: MicroRequest, result: MicroAttention) -> None:
    shown = selection(result)
    view = MicroView(theme(), shown.layer, shown.segment)
    if shown.segment is not None:
        tokens = " ".join(f"“{visible(token)}”" for token in result.tokens(shown.segment))
        st.caption(escape_markdown(f"Segment {shown.segment + 1} of {len(result.first):,}: {tokens}", longest=600))
    card(draw("micro_weights", result, view), origin(request, result, view))


def _picked(result: MicroAttention, character: int | None) -> None:
    """A click in the strip chooses its segment; a click elsewhere shows the mean again."""
    segment = None if character is None else result.holding(character)
    pin(None if segment is None else segment + 1, key=SEGMENT)


def _strip(result: MicroAttention) -> Strip:
    """The segmented text, shaded by how unevenly each segment uses the context states."""
    encoded = result.encoded
    even, effective = segment_figures(result)
    number = np.full(len(encoded), -1)
    for i, (first, length) in enumerate(zip(result.first.tolist(), result.length.tolist(), strict=True)):
        number[first : first + length] = i
    inside = number >= 0
    at = np.maximum(number, 0)
    row = TokenRow(
        key="segments",
        title=f"{result.facts.name}: {result.cut}",
        start=encoded.start,
        end=encoded.end,
        value=np.where(inside & ~np.isnan(even[at]), np.clip(1 - even[at], 0, 1), 0.0).astype(np.float32),
        scale="sequential",
        details=(
            Detail("evenness of its segment", np.where(inside, even[at], np.nan).astype(np.float32)),
            Detail("effective context states", np.where(inside, effective[at], np.nan).astype(np.float32)),
            Detail("segment", number + 1, digits=0),
        ),
        display=tuple(encoded.display),
        boundary=result.starts,
        muted=~inside,
    )
    note = "a notch starts a segment; faint: the prompt and single tokens, which have no micro step; click a segment"
    return Strip(encoded.text, (row,), Legend("even", "one state", note))
