"""The token strip of an attention map: the text, coloured by what the pinned query attends to."""

from __future__ import annotations

import numpy as np

from analysis.attention.result import AttentionResult
from analysis.token_strip.rows import Detail, Legend, Strip, TokenRow


def attention_strip(result: AttentionResult) -> Strip:
    """The text with the weight of each position; without a pin, with the mean weight that each receives."""
    reading, signed = result.reading, result.difference
    weight, query = result.spread()
    shown = weight[result.of_rows()]
    start, end = reading.source.T
    in_text = start >= 0
    root = np.sign(shown) * np.sqrt(np.minimum(np.abs(shown), 1))
    row = TokenRow(
        key=result.title if signed else result.sides[0].key,
        title=f"{result.title}, {result.view.what}",
        start=start[in_text],
        end=end[in_text],
        value=np.nan_to_num(root[in_text]).astype(np.float32),
        scale="diverging" if signed else "sequential",
        details=(
            Detail("weight", shown[in_text].astype(np.float32), digits=4),
            Detail("position", np.flatnonzero(in_text), digits=0),
            Detail("segment", reading.segment[in_text], digits=0),
        ),
        boundary=reading.starts[in_text],
        muted=np.isnan(shown[in_text]),
    )
    what = "mean weight received" if query is None else "weight from the pinned query"
    note = f"{what}, coloured by its square root; faint: after the query; a notch starts a segment"
    ends = ("-1, A more", "1, B more") if signed else ("0", "1")
    return Strip(
        result.request.text.document.text, (row,), Legend(*ends, note, "diverging" if signed else "sequential")
    )
