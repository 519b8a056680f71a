"""The token strip of depth: the text, coloured by the layer at which each token is decided."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.depth.options import DepthView
from analysis.depth.result import Depth, LayeredText
from analysis.depth.scores import LAYER_SCORES
from analysis.depth.strip_figure import DecisionScale, beside, segment_starts
from analysis.figures.figure import visible
from analysis.strips.uncertainty import text_pieces, turns_of
from analysis.token_strip.rows import BarRow, Detail, Legend, LineRow, Note, Strip, TokenRow
from analysis.uncertainty.strip_figure import CHANGES, largest

CHANGE = "B\u2212A"  # key of the row of pieces of text
NAMED = (0.25, 0.5, 0.75, 1.0)  # shares of the depth after which the inspector names the likeliest word


def depth_strip(depth: Depth, view: DepthView) -> Strip:
    """What the lens shows: a model or both, each under the curve of its final score, or what changed."""
    scale, lens, text = DecisionScale.of(depth), view.lens, depth.document.text
    rows: list[TokenRow | LineRow | BarRow] = []
    for key, side in zip(depth.keys, depth.sides, strict=True):
        drawn = lens in (key.lower(), "both")
        if drawn:
            rows.append(_curve(side, view))
        rows.append(_row(key, depth, side, view, hidden=not drawn))
    if depth.cells is None:
        return Strip(text, tuple(rows), _legend(scale, view), turns=turns_of(depth.document))
    changes, cells = scale.changes(depth), depth.cells
    shade = scale.shade(changes, change=True)
    columns = {"start": cells.start, "end": cells.end, "shade": shade, "change": changes}
    pieces = text_pieces(pd.DataFrame(columns), len(text))
    rows.append(
        TokenRow(
            key=CHANGE,
            title="B − A in the layer of decision",
            start=pieces["start"].to_numpy(dtype=np.int32),
            end=pieces["end"].to_numpy(dtype=np.int32),
            value=pieces["shade"].to_numpy(dtype=np.float32),
            scale="diverging",
            details=(_detail(depth, depth.sides[0], pieces["change"].to_numpy()),),
            hidden=lens != "change",
        )
    )
    rows.append(
        BarRow(
            CHANGE, "difference", cells.start, cells.end, shade, "B decides later", "B decides earlier", lens != "both"
        )
    )
    compares = lens in ("both", "change")
    jumps = np.sort(pieces["start"].to_numpy()[largest(pieces["change"].to_numpy())]).tolist() if compares else []
    return Strip(
        text,
        tuple(rows),
        _legend(scale, view),
        turns=turns_of(depth.document),
        jumps=tuple(jumps),
        jump_to=f"the {CHANGES} largest changes",
        overview=CHANGE if compares else "",
    )


def _legend(scale: DecisionScale, view: DepthView) -> Legend:
    if view.lens == "change":
        return Legend(*scale.ends(True), "B − A in the layer at which each piece is decided", "diverging")
    bars = "; bars: B − A" if view.lens == "both" else ""
    note = "layer at which each token is decided"
    return Legend(*scale.ends(), note, beside=f"curve: final {beside(view).title}{bars}")


def _detail(depth: Depth, side: LayeredText, values: NDArray[np.floating]) -> Detail:
    """The layer of decision of a model, or B minus A: lines of one label stand beside each other."""
    label = f"decided at layer, of {side.count}" if depth.same_layers else "decided at, of the depth"
    return Detail(label, values.astype(np.float32), digits=0 if depth.same_layers else 2)


def _row(key: str, depth: Depth, side: LayeredText, view: DepthView, hidden: bool) -> TokenRow:
    scale, encoded, starts = DecisionScale.of(depth), side.scored.encoded, segment_starts(side, view)
    kept = encoded.source_start >= 0
    display = encoded.display
    return TokenRow(
        key=key,
        title=side.scored.facts.name,
        start=encoded.source_start[kept],
        end=encoded.source_end[kept],
        value=scale.shade(scale.values(side))[kept],
        scale="sequential",
        details=(
            _detail(depth, side, scale.values(side)[kept]),
            *(
                Detail(f"final {score.title}, {score.unit(view.unit)}", side.values(score.name, view.unit)[-1][kept])
                for score in dict.fromkeys([beside(view), LAYER_SCORES["surprisal"]])
            ),
        ),
        display=tuple(display[i] for i in np.flatnonzero(kept)),
        boundary=None if starts is None else starts[kept],
        notes=tuple(_likeliest(side, layer, kept) for layer in _named_layers(side.count)),
        hidden=hidden,
    )


def _named_layers(count: int) -> list[int]:
    """Those after each quarter of the depth."""
    return sorted({round(share * count) for share in NAMED})


def _likeliest(side: LayeredText, layer: int, kept: NDArray[np.bool_]) -> Note:
    ids, index = np.unique(side.layers.top_id[layer, kept], return_inverse=True)
    return Note(f"after layer {layer}", index, tuple(visible(side.strings.get(each, ""), 16) for each in ids.tolist()))


def _curve(side: LayeredText, view: DepthView) -> LineRow:
    """The final prediction's score on its fixed scale: high where the model is unsure."""
    encoded, score = side.scored.encoded, beside(view)
    kept = encoded.source_start >= 0
    low, high = score.ends(view.unit)
    return LineRow(
        key="",
        title=f"final {score.title}, from {low} to {high}",
        start=encoded.source_start[kept],
        end=encoded.source_end[kept],
        value=np.clip(score.shade(side.values(score.name, view.unit)[-1], view.unit), 0, 1)[kept],
    )
