"""From the row of a query to the interlinear strip: the text, coloured by what the query attends to."""

from __future__ import annotations

import numpy as np

from analysis.attention.result import AttentionResult
from app.token_strip import Detail, Legend, Strip, TokenRow


def attention_strip(looked: AttentionResult) -> Strip:
    """The text with the weight of each position; without a pin, with what each receives."""
    reading, signed = looked.reading, looked.difference
    weight, query = looked.spread()
    shown = weight[looked.of_rows()]
    start, end = reading.source.T
    kept = start >= 0
    root = np.sign(shown) * np.sqrt(np.minimum(np.abs(shown), 1))
    row = TokenRow(
        key=looked.title if signed else looked.sides[0].key,
        title=f"{looked.title}, {looked.view.what}",
        start=start[kept],
        end=end[kept],
        value=np.nan_to_num(root[kept]).astype(np.float32),
        scale="diverging" if signed else "sequential",
        details=(
            Detail("weight", shown[kept].astype(np.float32), digits=4),
            Detail("position", np.flatnonzero(kept), digits=0),
            Detail("segment", reading.segment[kept], digits=0),
        ),
        boundary=reading.starts[kept],
        muted=np.isnan(shown[kept]),
    )
    what = "mean weight received" if query is None else "weight from the pinned query"
    note = f"{what}; colour by its root; faint: after the query; a notch starts a segment"
    ends = ("-1, A more", "1, B more") if signed else ("0", "1")
    return Strip(
        looked.request.text.document.text, (row,), Legend(*ends, note, "diverging" if signed else "sequential")
    )
