"""The token strip of an attribution: the text, coloured by what raises and lowers a number at one token."""

from __future__ import annotations

import numpy as np

from analysis.attribution.figures import per_token, top
from analysis.attribution.view import ShownAttribution
from analysis.score_registry import significant
from analysis.token_strip.rows import Detail, Legend, Strip, TokenRow


def attribution_strip(shown: ShownAttribution, hint: str = "") -> Strip:
    """The text, coloured by how much the quantity at the target depends on each token; a hint opens its legend."""
    encoded, target = shown.found.encoded, shown.found.target
    value = per_token(shown)
    deepest = significant(top(shown) * shown.scale)
    groups = shown.groups
    number = np.zeros(len(encoded), dtype=np.int64)
    number[:target] = np.repeat(np.arange(len(groups)), groups.last - groups.first + 1)
    begins = np.zeros(len(encoded), dtype=bool)
    begins[groups.first] = begins[target] = True
    in_text = encoded.source_start >= 0
    amount = (value * top(shown) * shown.scale)[in_text].astype(np.float32)
    details = [Detail(f"attribution, {shown.unit}", amount, digits=4)]
    if groups.standard_error is not None:
        error = np.full(len(encoded), np.nan)
        error[:target] = groups.standard_error[number[:target]] * shown.scale
        details.append(Detail(f"standard error, {shown.unit}", error[in_text].astype(np.float32), digits=4))
    row = TokenRow(
        key="+".join(key for key, _ in shown.request.models),
        title=shown.what,
        start=encoded.source_start[in_text],
        end=encoded.source_end[in_text],
        value=np.nan_to_num(value[in_text]).astype(np.float32),
        scale="diverging",
        details=(*details, Detail("token", np.flatnonzero(in_text), digits=0)),
        boundary=begins[in_text],
        muted=np.arange(len(encoded))[in_text] > target,
    )
    note = f"{hint}tokens after the explained one are faint, since they have no influence"
    legend = Legend(f"−{deepest}, lowers it", f"{deepest} {shown.unit}, raises it", note, "diverging")
    return Strip(shown.request.text.document.text, (row,), legend)


def explained(shown: ShownAttribution) -> int | None:
    """The place in the strip of the token whose number is attributed; None where it is none of the text."""
    place = int(shown.found.encoded.source_start[shown.found.target])
    return place if place >= 0 else None
