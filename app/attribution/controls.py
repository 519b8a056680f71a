"""The controls of the attribution page: what is attributed, how, and over what the values are summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import streamlit as st

from analysis.attribution.grouping import ATTRIBUTION_UNITS, AttributionUnit
from analysis.attribution.methods import METHODS, Features
from analysis.attribution.request import AttributionRequest, SegmentsQuery
from analysis.attribution.targets import BASELINES, QUANTITIES, Baseline
from analysis.segmentation.request import ScoresQuery
from analysis.segmentation.strategy import Strategy
from app.escape import escape_markdown
from app.sidebar import SidebarInputs
from app.widgets import NO_TEXT, segmented, segments_of
from model.errors import MicroStepError
from model.hub.loading import ModelSpec
from model.segmentation.segment import MAX_LENGTH
from model.text.document import TextInput

A, B = "A", "B"
UNIT = "sum_over"
FIRST_METHOD = "feature_ablation"  # quick and exact under any model: integrated gradients may take a thousand passes


@dataclass(frozen=True)
class Choice:
    """What the controls say of a run; the token is chosen in the text."""

    models: tuple[tuple[str, ModelSpec], ...]
    text: TextInput
    quantity: str
    method: str
    baseline: Baseline
    features: Features | None
    strategy: Strategy
    max_length: int

    @property
    def segmented(self) -> bool:
        """Whether the quantity is read in segments."""
        return QUANTITIES[self.quantity].segmented

    def scores(self) -> ScoresQuery:
        """The question for the scores of the text, in which the token is chosen."""
        return ScoresQuery(*self.models[0], self.text)

    def segments(self) -> SegmentsQuery:
        """The question for the segments."""
        return SegmentsQuery(*self.models[0], self.text, self.strategy, self.max_length)

    def request(self, at: int) -> AttributionRequest:
        """The question at a token."""
        return AttributionRequest(
            self.models,
            self.text,
            at,
            self.quantity,
            self.method,
            self.baseline,
            self.features,
            self.strategy if self.segmented else None,
            self.max_length if self.segmented else MAX_LENGTH,
        )


@dataclass(frozen=True)
class AttributionControls:
    """What the controls say, or why that is no question."""

    choice: Choice | None
    problem: str = ""
    hint: str = ""


def controls(inputs: SidebarInputs) -> AttributionControls:
    """Draw what decides a run, and read it."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        quantity = segmented(
            "Quantity", list(QUANTITIES), "quantity", "entropy",
            format_func=lambda name: QUANTITIES[name].title,
            help="  \n".join(
                f"**{escape_markdown(each.title)}**: {escape_markdown(each.meaning, 400)}."
                for each in QUANTITIES.values()
            ),
        )  # fmt: skip
        side = segmented(
            "Model", [A, B], "of", B, disabled=QUANTITIES[quantity].pair,
            help="Of the two in the sidebar. KL is of both; micro confidence and the decision to end are of a "
            "micro\\_step model, of which all else is its base's.",
        )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="bottom"):
        method = segmented(
            "Method", list(METHODS), "method", FIRST_METHOD,
            format_func=lambda name: METHODS[name].title,
            help="  \n".join(
                f"**{escape_markdown(each.title)}**: {escape_markdown(each.meaning, 400)}." for each in METHODS.values()
            ),
        )  # fmt: skip
        baseline = segmented(
            "Baseline", list(BASELINES), "baseline", "mean",
            help="What stands for nothing.  \n"
            + "  \n".join(f"**{name}**: {said}." for name, said in BASELINES.items()),
        )  # fmt: skip
        features = _features(method)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        strategy, cap = segments_of(inputs, "For sums over segments, and for what a micro_step model reads.")
    if inputs.problem:
        return AttributionControls(None, problem=inputs.problem)
    if inputs.text is None or inputs.a is None or inputs.b is None:
        return AttributionControls(None, hint=NO_TEXT)
    pairs = ((A, inputs.a), (B, inputs.b))
    models = pairs if QUANTITIES[quantity].pair else tuple(pair for pair in pairs if pair[0] == side)
    try:
        parsed = Strategy.parse(strategy)
    except MicroStepError as error:
        return AttributionControls(None, problem=str(error))
    return AttributionControls(
        Choice(
            models,
            inputs.text,
            quantity,
            method,
            baseline,
            features,
            parsed,
            cap,
        )
    )


def unit(offered: tuple[AttributionUnit, ...]) -> AttributionUnit:
    """Draw over what the values are summed, and read it."""
    return segmented(
        "Sum over", list(offered), UNIT, offered[0],
        help="Values of larger units are sums: no model runs.  \n"
        + "  \n".join(f"**{name}**: {ATTRIBUTION_UNITS[name]}." for name in offered),
    )  # fmt: skip


def _features(method: str) -> Features | None:
    """What is moved; of methods that move nothing, None."""
    own = METHODS[method].features
    if own is None:
        return None
    chosen = segmented(
        "Moves", ["tokens", "words"], f"moves_{method}", own, help="What is replaced by the baseline at once."
    )
    return None if chosen == own else cast(Features, chosen)
