"""The token strip of segmentations: a row for each, and the chosen strategy's values as a curve above its rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.score_registry import significant
from analysis.segmentation.comparison import StrategyComparison, value_axis, value_range, why_words
from analysis.segmentation.segmented_text import SegmentedText
from analysis.segmentation.strategy import scale
from analysis.segmentation.view import CutView
from analysis.token_strip.rows import Detail, Legend, LineRow, Note, Strip, TokenRow


def segment_strip(bench: StrategyComparison, view: CutView) -> Strip:
    """The segmentations that are shown, in the order of the strategies."""
    rows: list[TokenRow | LineRow] = []
    for name, cuts in bench.rows:
        if cuts[0].number == view.chosen:
            rows += [_curve(cut, view) for cut in cuts]
        rows.append(_row(bench, name, cuts, view))
    note = "neighbouring segments differ in tone; a notch starts a segment"
    if any(cut.inputs.prompt is not None for cut in bench.shown):
        note += "; the prompt is faint, and not merged"
    return Strip(bench.sides[0].text, tuple(rows), Legend("", "", note, scale="none"))


def _row(bench: StrategyComparison, name: str, cuts: tuple[SegmentedText, ...], view: CutView) -> TokenRow:
    cut = cuts[0]
    side, found, rule = cut.side, cut.found, cut.strategy.rule
    in_text = side.start >= 0
    lengths = found.lengths[found.segment]
    compared = value_axis(rule, view.unit)
    models = " and ".join(each.side.facts.name for each in cuts)
    return TokenRow(
        key=name,
        title=f"{cut.strategy.title(view.unit)}; {models}",
        start=side.start[in_text],
        end=side.end[in_text],
        details=(
            *(
                Detail(
                    "value" if len(cuts) == 1 else f"value, {each.side.key}",
                    (each.found.value * scale(rule.unit, view.unit))[each.side.start >= 0].astype(np.float32),
                )
                for each in cuts
            ),
            Detail("segment", found.segment[in_text], digits=0),
            Detail("its tokens", lengths[in_text], digits=0),
        ),
        notes=(
            Note("value of", np.zeros(int(in_text.sum()), dtype=np.int64), (compared,)),
            Note("why", bench.reasons(cut)[in_text], tuple(why_words(cut, view.unit))),
        ),
        boundary=found.starts[in_text],
        muted=None if cut.inputs.prompt is None else cut.inputs.prompt[in_text],
    )


def _curve(cut: SegmentedText, view: CutView) -> LineRow:
    side, rule = cut.side, cut.strategy.rule
    in_text = side.start >= 0
    low, high = value_range(rule, view.unit, cut.found.max_length)
    factor, bar = scale(rule.unit, view.unit), cut.strategy.bar

    def placed(values: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.asarray(np.clip((values - low) / (high - low), 0, 1), dtype=np.float32)

    return LineRow(
        key="",
        title=f"{value_axis(rule, view.unit)}, from {significant(low, 2)} to {significant(high, 2)}",
        start=side.start[in_text],
        end=side.end[in_text],
        value=placed(cut.found.value[in_text].astype(np.float64) * factor),
        threshold=None if bar is None else float((bar * factor - low) / (high - low)),
        marked=rule.opens,
    )
