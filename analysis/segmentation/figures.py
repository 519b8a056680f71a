"""The figures of the segmentation page, by name."""

from __future__ import annotations

from collections.abc import Callable

from analysis.figures.figure import Figure, check_figure
from analysis.segmentation.comparison import StrategyComparison
from analysis.segmentation.metric_figures import agreement, curves, lengths, statistics
from analysis.segmentation.value_figures import history, segments, unstable, values
from analysis.segmentation.view import CutView

FIGURES: dict[str, Callable[[StrategyComparison, CutView], Figure]] = {
    "segments": segments,
    "values": values,
    "statistics": statistics,
    "agreement": agreement,
    "lengths": lengths,
    "curves": curves,
    "unstable": unstable,
    "history": history,
}


def draw(name: str, bench: StrategyComparison, view: CutView) -> Figure:
    """Draw a figure by name.

    Raises:
        MicroStepError: no figure has this name, or what it shows was not asked for.
    """
    check_figure(name, FIGURES)
    return FIGURES[name](bench, view)
