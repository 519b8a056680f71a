"""The controls of the attribution page: the quantity, the method, and the unit of the sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis.attribution.grouping import ATTRIBUTION_UNITS
from analysis.attribution.methods import METHODS
from analysis.attribution.options import AttributionUnit, Baseline, Features
from analysis.attribution.quantities import BASELINES, QUANTITIES
from analysis.attribution.request import AttributionRequest, SegmentsQuery
from analysis.segmentation.request import ScoresQuery
from analysis.segmentation.strategy import Segmenter
from app.escape import escape_markdown
from app.segmentation.strategy_select import segmenter
from app.sidebar import SidebarInputs
from app.widgets import segmented
from model.hub.loading import ModelSpec
from model.text.document import TextInput

A, B = "A", "B"
GROUP_BY = "group_by"
FIRST_METHOD = "feature_ablation"  # fast and exact for any model; integrated gradients may need a thousand passes


@dataclass(frozen=True)
class Choice:
    """What the reader chose for a run, all but the target token, which is chosen in the text."""

    models: tuple[tuple[str, ModelSpec], ...]
    text: TextInput
    quantity: str
    method: str
    baseline: Baseline
    features: Features | None
    segmenter: Segmenter

    @property
    def segmented(self) -> bool:
        """Whether the model reads the text in segments for this quantity."""
        return QUANTITIES[self.quantity].segmented

    def scores(self) -> ScoresQuery:
        """The query for the scores of the text, from which a first target is chosen."""
        return ScoresQuery(*self.models[0], self.text)

    def segments(self) -> SegmentsQuery:
        """The query for the segments."""
        return SegmentsQuery(*self.models[0], self.text, self.segmenter)

    def request(self, target: int) -> AttributionRequest:
        """The query for a target token."""
        return AttributionRequest(
            self.models,
            self.text,
            target,
            self.quantity,
            self.method,
            self.baseline,
            self.features,
            self.segmenter if self.segmented else None,
        )


def controls(inputs: SidebarInputs) -> tuple[Choice | None, DeltaGenerator]:
    """Draw the controls of a run, and read them (None without text or models); and the place for further options."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="controls_line"):
        quantity = segmented(
            "Quantity", list(QUANTITIES), "quantity", "entropy", label_visibility="collapsed", width="content",
            format_func=lambda name: QUANTITIES[name].title,
        )  # fmt: skip
        pair = QUANTITIES[quantity].pair
        side = segmented(
            "Model", [A, B], "explained", B, formerly="of", disabled=pair, label_visibility="collapsed",
            width="content",
        )  # fmt: skip
        options = st.popover("Options", help="The meaning of the quantities, the method, and sums.", width="content")
    with options:
        st.caption(
            "  \n".join(
                f"**{escape_markdown(each.title)}**: {escape_markdown(each.meaning, 400)}."
                for each in QUANTITIES.values()
            )
            + "  \nMicro confidence and the decision to end need a micro\\_step model. All other quantities use its "
            "base."
        )
        method = segmented(
            "Method", list(METHODS), "method", FIRST_METHOD,
            format_func=lambda name: METHODS[name].title,
            help="  \n".join(
                f"**{escape_markdown(each.title)}**: {escape_markdown(each.meaning, 400)}." for each in METHODS.values()
            ),
        )  # fmt: skip
        baseline = segmented(
            "Baseline", list(BASELINES), "baseline", "mean",
            help="The embedding that replaces a removed token.  \n"
            + "  \n".join(f"**{name}**: {said}." for name, said in BASELINES.items()),
        )  # fmt: skip
        features = _features(method)
        by = segmenter(inputs, "Used for sums over segments, and for what a micro_step model reads.")
    ready = inputs.ready()
    if ready is None:
        return None, options
    a, b, text = ready
    pairs = ((A, a), (B, b))
    models = pairs if pair else tuple(pair for pair in pairs if pair[0] == side)
    choice = Choice(
        models,
        text,
        quantity,
        method,
        baseline,
        features,
        by,
    )
    return choice, options


def group_by(offered: tuple[AttributionUnit, ...]) -> AttributionUnit:
    """Draw the choice of the unit over which values are summed, and read it."""
    return segmented(
        "Sum over", list(offered), GROUP_BY, offered[0], formerly="sum_over",
        help="Values of larger units are sums, so no model runs again.  \n"
        + "  \n".join(f"**{name}**: {ATTRIBUTION_UNITS[name]}." for name in offered),
    )  # fmt: skip


def _features(method: str) -> Features | None:
    """Draw the choice of what a method removes at once, and read it; None if the method decides it."""
    own = METHODS[method].features
    if own is None:
        return None
    chosen = segmented(
        "Removes", ["tokens", "words"], f"moves_{method}", own, help="What the baseline replaces at once."
    )
    return None if chosen == own else cast(Features, chosen)
