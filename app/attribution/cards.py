"""The cards of the attribution page: the figures that answer, the text, the strongest units, the curves."""

from __future__ import annotations

import numpy as np
import streamlit as st

from analysis.attribution.faithfulness import ROWS
from analysis.attribution.figures import draw, per_token, target_text, top
from analysis.attribution.methods import CLOSE, METHODS
from analysis.attribution.provenance import ShownAttribution, origin
from analysis.attribution.targets import BASELINES
from analysis.figures.figure import visible
from analysis.score_registry import significant
from app.cards import card
from app.escape import escape_markdown
from app.state import pin
from app.token_strip import Detail, Legend, Strip, TokenRow, token_strip


def summary(shown: ShownAttribution) -> None:
    """The four figures that say what was attributed, and how far to believe it."""
    found, check = shown.found.found, shown.found.faithfulness
    title, baseline = shown.quantity.title, BASELINES[shown.request.baseline]
    said = visible(target_text(shown), 30)
    with st.container(border=True, key="card_attribution_summary"):
        columns = st.columns(4)
        with columns[0]:
            st.metric(
                escape_markdown(title),
                f"{significant(found.f_input * shown.scale)} {shown.unit}",
                help=escape_markdown(f"{shown.quantity.meaning}."),
            )
            st.caption(escape_markdown(f"at “{said}”, token {shown.found.target} of {len(shown.found.encoded):,}"))
        with columns[1]:
            st.metric(
                "on the baseline",
                f"{significant(found.f_baseline * shown.scale)} {shown.unit}",
                help=escape_markdown(f"The same with {baseline} in place of every token before it."),
            )
            st.caption(escape_markdown(baseline))
        with columns[2]:
            _error(shown)
        with columns[3]:
            own, random = check.own, check.random
            st.metric(
                "faithfulness",
                significant(own),
                help="Area between the insertion and the deletion curve, over the range that the quantity takes on "
                "all curves: -1 to 1. The farther above random orders, the more faithful.",
            )
            low, high = float(random.min()), float(random.max())
            st.caption(
                f"random orders: {significant(float(random.mean()))} ({significant(low)} to {significant(high)})"
            )
        notes = [*shown.found.notes, f"{found.passes + ROWS:,} rows were read"]
        st.caption(escape_markdown(f"{shown.what}. {'; '.join(notes)}.", longest=2000))


def _error(shown: ShownAttribution) -> None:
    """What the method says of its own error."""
    found, how = shown.found.found, METHODS[shown.request.method]
    difference = abs(found.f_input - found.f_baseline)
    if shown.groups.standard_error is not None:
        largest = float(np.nanmax(shown.groups.standard_error)) * shown.scale
        st.metric(
            "standard error",
            f"{significant(largest)} {shown.unit}",
            help="Of a unit's Shapley value, from 5 independent batches of permutations.",
        )
        st.caption(f"the largest; values up to {significant(top(shown) * shown.scale)} {shown.unit}")
    elif found.delta is not None:
        st.metric(
            "convergence delta",
            f"{significant(found.delta * shown.scale)} {shown.unit}",
            help="The sum of all attributions minus the difference between text and baseline, which they should sum "
            f"to. Steps are doubled until it is at most {CLOSE:.0%} of the difference.",
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
            "their sum",
            f"{significant(total)} {shown.unit}",
            help=escape_markdown(f"{how.title}: {how.meaning}."),
        )
        st.caption(f"need not be the difference, {significant((found.f_input - found.f_baseline) * shown.scale)}")


def cards(shown: ShownAttribution) -> None:
    """The text, the strongest units, and the curves."""
    where, encoded, at = origin(shown), shown.found.encoded, shown.found.target
    place = int(encoded.source_start[at])
    card(
        draw("attribution", shown),
        where,
        body=lambda: token_strip(
            strip(shown), key="attributed", pinned=place if place >= 0 else None, on_pin=pin, height=360
        ),
    )
    card(draw("units", shown), where)
    card(draw("curves", shown), where)


def strip(shown: ShownAttribution) -> Strip:
    """The text, coloured by what the target's quantity depends on."""
    encoded, at = shown.found.encoded, shown.found.target
    value = per_token(shown)
    deepest = significant(top(shown) * shown.scale)
    groups = shown.groups
    number = np.zeros(len(encoded), dtype=np.int64)
    number[:at] = np.repeat(np.arange(len(groups)), groups.last - groups.first + 1)
    begins = np.zeros(len(encoded), dtype=bool)
    begins[groups.first] = begins[at] = True
    kept = encoded.source_start >= 0
    amount = (value * top(shown) * shown.scale)[kept].astype(np.float32)
    details = [Detail(f"attribution, {shown.unit}", amount, digits=4)]
    if groups.standard_error is not None:
        error = np.full(len(encoded), np.nan)
        error[:at] = groups.standard_error[number[:at]] * shown.scale
        details.append(Detail(f"standard error, {shown.unit}", error[kept].astype(np.float32), digits=4))
    row = TokenRow(
        key="+".join(key for key, _ in shown.request.models),
        title=shown.what,
        start=encoded.source_start[kept],
        end=encoded.source_end[kept],
        value=np.nan_to_num(value[kept]).astype(np.float32),
        scale="diverging",
        details=(*details, Detail("token", np.flatnonzero(kept), digits=0)),
        boundary=begins[kept],
        muted=np.arange(len(encoded))[kept] > at,
    )
    note = "the pinned token is explained; faint: after it, without influence; click a token to explain it"
    legend = Legend(f"-{deepest}, lowers it", f"{deepest} {shown.unit}, raises it", note, "diverging")
    return Strip(shown.request.text.document.text, (row,), legend)
