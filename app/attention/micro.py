"""The micro view of the attention page: what the micro decoder looks at, segment by segment and over a text."""

from __future__ import annotations

from functools import partial

import numpy as np
import streamlit as st

from analysis.attention.evenness.statistics import BAR
from analysis.attention.micro.figures import draw
from analysis.attention.micro.provenance import MicroView, origin
from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.result import MicroAttention
from analysis.attention.micro.tables import finding, segment_figures
from analysis.figures.figure import visible
from analysis.score_registry import significant
from app.attention.micro_controls import SEGMENT, controls, looked_at
from app.cards import card
from app.error_net import fragment
from app.escape import escape_markdown
from app.run_query import QueryDisplay, run_or_get
from app.sidebar import SidebarInputs
from app.state import pin
from app.styles import theme
from app.token_strip import Detail, Legend, Strip, TokenRow, token_strip
from app.widgets import NO_TEXT
from model.errors import MicroStepError


def micro_view(inputs: SidebarInputs) -> None:
    """Draw the view under the page's title."""
    if inputs.problem:
        st.error(escape_markdown(inputs.problem))
        return
    if inputs.text is None or inputs.a is None or inputs.b is None:
        st.info(NO_TEXT)
        return
    try:
        request = controls(inputs, inputs.a, inputs.b, inputs.text)
    except MicroStepError as error:
        st.error(escape_markdown(str(error)))
        return
    found = run_or_get(request, QueryDisplay("reading"))
    if found is not None:
        _summary(found)
        _results(request, found)


def _summary(found: MicroAttention) -> None:
    """The four figures that answer "is all of the context used?", and what must be said of them."""
    sums, k = found.sums, found.states
    effective, even = sums.effective, sums.figure("evenness").at()
    share, largest = sums.figure("context_share").at(), sums.figure("largest").at()
    with st.container(border=True, key="card_micro_summary"):
        columns = st.columns(4)
        with columns[0]:
            st.metric(
                "effective context states",
                f"{significant(effective.mean)} of {k}",
                help="exp H of a head's weights over the context states, mean over segments, layers, heads and micro "
                f"positions. From {significant(BAR * k)} on they count as fairly evenly used.",
            )
            st.caption(effective.ends(lead="95% "))
        with columns[1]:
            said = significant(even.mean) if k > 1 else "not defined"
            st.metric("evenness", said, help="H over ln K: 1 is perfectly even, 0 is one state; nothing where K is 1.")
            of_mean = significant(sums.effective_of_mean.mean)
            st.caption(f"{even.ends(lead='95% ')}; mean over heads: {of_mean} of {k}")
        with columns[2]:
            st.metric("attention on the context", f"{share.mean:.0%}", help="The rest is on the segment's own tokens.")
            st.caption(f"{share.ends('{:.0%}'.format, '95% ')}; {len(found.first):,} segments")
        with columns[3]:
            top = int(np.argmax(sums.largest_at.mean))
            layer = found.micro.context_layers[top]
            st.metric(
                "largest share of a state",
                f"{largest.mean:.0%}",
                help=f"Of a head's weight on the context, what goes to its most attended state; even is {1 / k:.0%}.",
            )
            st.caption(f"most often layer {layer}, in {sums.largest_at.mean[top]:.0%} of queries")
        if found.untrained:
            st.markdown(
                "**Untrained.** The micro decoder is a copy of the base's last layers: this is where training starts, "
                "and says nothing about trained models. For a trained one choose micro-step-tiny in the sidebar."
            )
        st.markdown(escape_markdown(f"Are all context states used fairly evenly? {finding(sums)}", longest=1000))
        notes = [f"segments: {found.cut}", *(note for note in found.notes if not note.startswith("untrained"))]
        st.caption(escape_markdown(f"{found.facts.name}: {'; '.join(notes)}. {sums.units.meaning}.", longest=2000))


@fragment
def _results(request: MicroRequest, found: MicroAttention) -> None:
    """Everything below the summary; another segment or layer redraws only this."""
    shown = looked_at(found)
    view = MicroView(theme(), shown.layer, shown.segment)
    where = origin(request, found, view)
    at = None if shown.segment is None else int(found.encoded.start[found.first[shown.segment]])
    strip = _strip(found)
    card(
        draw("micro_segments", found, view),
        where,
        body=lambda: token_strip(strip, key="micro_strip", pinned=at, height=300, on_pin=partial(_picked, found)),
    )
    if shown.segment is not None:
        said = " ".join(f"“{visible(token)}”" for token in found.tokens(shown.segment))
        st.caption(escape_markdown(f"Segment {shown.segment + 1} of {len(found.first):,}: {said}", longest=600))
    card(draw("micro_weights", found, view), where)
    card(draw("micro_evenness", found, view), where)
    card(draw("micro_shares", found, view), where)


def _picked(found: MicroAttention, character: int | None) -> None:
    """A click in the strip chooses its segment; on a token in none, or beside the text, the mean is shown again."""
    segment = None if character is None else found.holding(character)
    pin(None if segment is None else segment + 1, key=SEGMENT)


def _strip(found: MicroAttention) -> Strip:
    """The text in its segments, shaded by how unevenly each uses the context states."""
    encoded = found.encoded
    even, effective = segment_figures(found)
    number = np.full(len(encoded), -1)
    for i, (first, length) in enumerate(zip(found.first.tolist(), found.length.tolist(), strict=True)):
        number[first : first + length] = i
    inside = number >= 0
    at = np.maximum(number, 0)
    row = TokenRow(
        key="segments",
        title=f"{found.facts.name}: {found.cut}",
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
        boundary=found.starts,
        muted=~inside,
    )
    note = "a notch starts a segment; faint: segments of one token and prompt, with no micro step; click one to see it"
    return Strip(encoded.text, (row,), Legend("even", "one state", note))
