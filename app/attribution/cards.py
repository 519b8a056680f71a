"""The cards of the attribution page: the summary, the text, the strongest units, and the curves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from analysis.attribution.faithfulness import ROWS
from analysis.attribution.figures import draw, headline, target_text, top
from analysis.attribution.methods import CLOSE, METHODS
from analysis.attribution.options import AttributionView
from analysis.attribution.provenance import origin
from analysis.attribution.quantities import BASELINES
from analysis.attribution.request import default_target
from analysis.attribution.result import Attribution, UnitSegments
from analysis.attribution.view import ShownAttribution
from analysis.figures.figure import visible
from analysis.score_registry import Unit, significant
from analysis.strips.attribution import attribution_strip, explained
from analysis.uncertainty.result import ScoredText
from app.attribution import controls
from app.attribution.controls import Choice
from app.cards import card, fold, opening
from app.escape import escape_markdown
from app.run_query import QueryDisplay, run_or_get
from app.state import pin, pinned
from app.styles import theme
from app.token_strip import token_strip


def result_cards(
    choice: Choice, scored: ScoredText, segments: UnitSegments, information: Unit, options: DeltaGenerator
) -> None:
    """Everything below the controls; entropies are shown in the unit `information`, and `options` takes one more."""
    request = choice.request(_target(choice, scored, segments))
    display = QueryDisplay[Attribution]("attributing", lambda load, progress: request.run(load, progress, segments))
    result = run_or_get(request, display)
    if result is None:
        return
    shown = ShownAttribution(request, result, AttributionView(request.moved or "tokens"), choice.segments(), segments)
    with options:
        group_by = controls.group_by(shown.units)
    shown = replace(shown, view=AttributionView(group_by, information, theme()))
    _figures(shown)


def _target(choice: Choice, scored: ScoredText, segments: UnitSegments) -> int:
    """The index of the pinned token; without a pin, one of the first tokens where the model is unsure."""
    place, encoded = pinned(), scored.encoded
    if place is not None:
        for i, (start, end) in enumerate(zip(encoded.source_start.tolist(), encoded.source_end.tolist(), strict=True)):
            if start <= place < end:
                return i
    return default_target(scored, choice.quantity, segments)


def _summary(shown: ShownAttribution) -> None:
    """The four numbers that say what was attributed, and how far to trust it."""
    found, check = shown.found.found, shown.found.faithfulness
    title, baseline = shown.quantity.title, BASELINES[shown.request.baseline]
    target = visible(target_text(shown), 30)
    columns = st.columns(4)
    with columns[0]:
        st.metric(
            escape_markdown(title),
            f"{significant(found.f_input * shown.scale)} {shown.unit}",
            help=escape_markdown(f"{shown.quantity.meaning}."),
        )
        st.caption(escape_markdown(f"at “{target}”, token {shown.found.target} of {len(shown.found.encoded):,}"))
    with columns[1]:
        st.metric(
            "on the baseline",
            f"{significant(found.f_baseline * shown.scale)} {shown.unit}",
            help=escape_markdown(f"The same number with {baseline} in place of every earlier token."),
        )
        st.caption(escape_markdown(baseline))
    with columns[2]:
        _error(shown)
    with columns[3]:
        own, random = check.own, check.random
        st.metric(
            "faithfulness",
            significant(own),
            help="The area between the insertion and the deletion curve, divided by the range of the quantity over "
            "all curves: −1 to 1. The farther above random orders, the more faithful the attribution.",
        )
        low, high = float(random.min()), float(random.max())
        st.caption(f"random orders: {significant(float(random.mean()))} ({significant(low)} to {significant(high)})")
    notes = [*shown.found.notes, f"the model read {found.passes + ROWS:,} rows"]
    st.caption(escape_markdown(f"{'; '.join([shown.what, *notes])}.", longest=2000))


def _error(shown: ShownAttribution) -> None:
    """The method's own error estimate."""
    found, method = shown.found.found, METHODS[shown.request.method]
    difference = abs(found.f_input - found.f_baseline)
    if shown.groups.standard_error is not None:
        largest = float(np.nanmax(shown.groups.standard_error)) * shown.scale
        st.metric(
            "standard error",
            f"{significant(largest)} {shown.unit}",
            help="The standard error of a unit's Shapley value, from 5 independent batches of permutations.",
        )
        st.caption(f"the largest; values up to {significant(top(shown) * shown.scale)} {shown.unit}")
    elif found.delta is not None:
        st.metric(
            "convergence delta",
            f"{significant(found.delta * shown.scale)} {shown.unit}",
            help="Attributions should sum to the difference between text and baseline; this is how far they are off. "
            f"Steps are doubled until it is at most {CLOSE:.0%} of the difference.",
        )
        share = (
            f"{abs(found.delta) / difference:.1%} of the difference{'' if found.converged else ': not converged'}"
            if difference
            else "no difference"
        )
        st.caption(f"{share}, {found.steps} steps")
    else:
        total = float(np.nansum(shown.found.values)) * shown.scale
        st.metric(
            "sum of attributions",
            f"{significant(total)} {shown.unit}",
            help=escape_markdown(f"{method.title}: {method.meaning}."),
        )
        st.caption(f"need not equal the difference, {significant((found.f_input - found.f_baseline) * shown.scale)}")


def _figures(shown: ShownAttribution) -> None:
    """The text; folded below it the numbers, the strongest units, and the curves."""
    provenance = origin(shown)
    opening(
        headline(shown),
        draw("attribution", shown),
        provenance,
        body=lambda: token_strip(
            attribution_strip(shown, "click a token to explain it; "),
            key="attributed",
            pinned=explained(shown),
            on_pin=pin,
            height=360,
        ),
    )
    fold("attribution_summary", "What was attributed, and how far to trust it", lambda: _summary(shown))
    card(draw("units", shown), provenance, folded=True)
    card(draw("curves", shown), provenance, folded=True)
