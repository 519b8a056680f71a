"""The controls of the depth page: what is shown of each layer, of which model, and whose segments stand beside it."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from analysis.depth.options import NO_SEGMENTS
from analysis.depth.request import DepthRequest, lens_files
from analysis.depth.scores import LAYER_SCORES
from analysis.depth.strip_figure import DECIDED, segmenter_of
from analysis.segmentation.strategy import Strategy
from analysis.view import Lens
from app import state
from app.escape import escape_markdown
from app.links import held, linked, settle
from app.sidebar import SidebarInputs
from app.widgets import segmented, selected
from model.access import offered_path
from model.errors import MicroStepError
from model.segmentation.segment import RULES

SEGMENTS = "beside"  # the key of the strategy
LENSES: dict[Lens, str] = {"a": "A", "b": "B", "both": "both", "change": "change"}
TITLES = {name: score.title for name, score in LAYER_SCORES.items()}
FROM_SCORES = [str(Strategy.of(name)) for name, rule in RULES.items() if rule.needs <= {"scores", "text"}]


@dataclass(frozen=True)
class DepthControls:
    """What the reader chose above the strip."""

    request: DepthRequest | None  # None without a text or models
    score: str
    lens: Lens
    segments: str


def controls(inputs: SidebarInputs) -> DepthControls:
    """Draw the controls in one line, and read them.

    Raises:
        MicroStepError: a tuned lens cannot be read.
    """
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="lens_row"):
        lens = segmented(
            "Lens", list(LENSES), "lens", "both", format_func=LENSES.__getitem__, label_visibility="collapsed",
            help="**A**, **B**, **both**: the layers of each model.  \n**change**: how much later B decides each piece "
            "of text than A, and B − A in every layer.",
        )  # fmt: skip
        score = selected(
            "Quantity", list(LAYER_SCORES), "layer_score", "entropy", format_func=TITLES.__getitem__, width=230,
            label_visibility="collapsed",
            help="A layer's prediction is what the model's final norm and head read from its state.  \n"
            + "  \n".join(f"**{score.title}**: {score.meaning}" for score in LAYER_SCORES.values())
            + f"  \n**decided**: {DECIDED}",
        )  # fmt: skip
        segments = _segments()
        options = st.popover(
            "Options", help="Tuned lenses, which are trained, in place of the logit lens.", width="content"
        )
    with options:
        lenses = [_tuned_lens(letter) for letter in "AB"]
    ready = inputs.ready()
    request = None
    if ready is not None:
        a, b, text = ready
        request = DepthRequest((("A", a), ("B", b)), text, lens_files(lenses[0], lenses[1], 2))
    return DepthControls(request, score, lens, segments)


def _segments() -> str:
    """Draw the choice of the strategy whose segments the strip marks, and read it."""
    typed = str(held(SEGMENTS, NO_SEGMENTS))
    try:
        segmenter_of(typed)
    except MicroStepError as error:
        st.warning(escape_markdown(f"“{typed}” cannot be used: {error}. No segments are shown.", longest=600))
        settle(SEGMENTS, typed := NO_SEGMENTS)
    known = [NO_SEGMENTS, *FROM_SCORES]
    chosen = st.selectbox(
        "Segments", known if typed in known else [*known, typed], accept_new_options=True, width=210, key=SEGMENTS,
        format_func=lambda name: "no segments" if name == NO_SEGMENTS else f"segments: {name}",
        label_visibility="collapsed",
        help="Marks where a strategy starts segments in the strip. Choose a strategy that needs only scores, or type "
        "one such as entropy:threshold=1.2 (in nats).",
    )  # fmt: skip
    return str(chosen or NO_SEGMENTS)


def _tuned_lens(letter: str) -> str | None:
    """Draw the box for the path of a tuned lens, and read it."""
    typed = st.text_input(
        f"Tuned lens of {letter}", **linked(f"tuned_{letter.lower()}", ""), max_chars=state.LONGEST_IN_URL,
        help="A folder with params.pt or params.safetensors, as the package tuned-lens saves it, or such a file. If "
        "empty, the logit lens reads the layers.",
    )  # fmt: skip
    path = str(typed).strip()
    return offered_path(path) if path else None
