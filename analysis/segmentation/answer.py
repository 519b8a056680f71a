"""One text in segments, and a strategy solved for a mean length, as the commands and the face give them."""

from __future__ import annotations

from dataclasses import replace

from analysis.answer import Result
from analysis.query import ModelLoader, Session
from analysis.score_registry import significant
from analysis.segmentation.comparison import StrategyComparison, compare_strategies, text_bench
from analysis.segmentation.figures import FIGURES, draw
from analysis.segmentation.provenance import origin
from analysis.segmentation.request import CutRequest
from analysis.segmentation.segmented_text import MemoCache
from analysis.segmentation.single import curve_table, finding, segment_table
from analysis.segmentation.strategy import Segmenter, Strategy, check_features, check_rule
from analysis.segmentation.view import CutView
from analysis.strips.segmentation import segment_strip
from analysis.token_strip.notebook import NotebookStrip
from analysis.uncertainty.result import ScoredText
from model.errors import MicroStepError
from model.hub.loading import ModelSpec
from model.progress import Progress
from model.segmentation.solver import POINTS, Solved, length_of_segments, solvable, solve
from model.text.document import TextInput


def segmented(
    model: ModelSpec,
    text: TextInput,
    segmenter: Segmenter,
    view: CutView,
    load: ModelLoader,
    progress: Progress | None = None,
    target_length: float | None = None,
) -> Result[StrategyComparison]:
    """Divide a text by one strategy; with a target, by the parameter that gives this mean length.

    Raises:
        MicroStepError: the model, the text or the strategy cannot be read, or the target cannot be reached.
    """
    compared, scored, _ = _run(model, text, segmenter, target_length, None, load, progress)
    (shown,) = compared.shown
    mean, segments = compared.mean_length(shown), int(shown.found.starts.sum())
    return Result(
        "segment",
        compared,
        _figures(compared),
        view,
        lambda: segment_table(scored, shown.found, view.unit),
        lambda: (
            f"{len(shown.found):,} tokens of {scored.facts.name} in {segments:,} segments by"
            f" {shown.strategy.title(view.unit)}; {significant(mean.mean)} tokens per segment"
        ),
        lambda name, view: draw(name, compared, view),
        lambda _, view: origin(compared, view),
        compared.sides[0].notes,
        lambda view: NotebookStrip(segment_strip(compared, view), view.pinned),
    )


def compared(
    request: CutRequest,
    view: CutView,
    load: ModelLoader,
    progress: Progress | None = None,
    other_precision: bool = False,
) -> Result[StrategyComparison]:
    """Compare strategies, under one model or two.

    Raises:
        MicroStepError: as `segmented`.
    """
    found = compare_strategies(request, load, progress, other_precision)
    return Result(
        "segment",
        found,
        _figures(found),
        view,
        found.statistics_table,
        lambda: found.finding(view.chosen),
        lambda name, view: draw(name, found, view),
        lambda _, view: origin(found, view),
        tuple(f"{side.key}: {note}" for side in found.sides for note in side.notes),
        lambda view: NotebookStrip(segment_strip(found, view), view.pinned),
    )


def solved(
    model: ModelSpec,
    text: TextInput,
    segmenter: Segmenter,
    view: CutView,
    load: ModelLoader,
    progress: Progress | None = None,
    target_length: float | None = None,
    target_segments: int | None = None,
) -> Result[Solved]:
    """Find the parameter of a strategy that gives a mean segment length, or a number of segments.

    Raises:
        MicroStepError: as `segmented`, or there is not exactly one target.
    """
    if (target_length is None) == (target_segments is None):
        raise MicroStepError("give either a target length or a target number of segments")
    if target_segments is not None and target_segments < 1:
        raise MicroStepError(f"target_segments must be at least 1, got {target_segments}")
    compared, _, solution = _run(model, text, segmenter, target_length, target_segments, load, progress)
    assert solution is not None
    return Result(
        "solve",
        solution,
        ("curves", *(name for name in _figures(compared) if name != "curves")),
        view,
        lambda: curve_table(solution, view.unit),
        lambda: finding(solution),
        lambda name, view: draw(name, compared, view),
        lambda _, view: origin(compared, view),
        compared.sides[0].notes,
        lambda view: NotebookStrip(segment_strip(compared, view), view.pinned),
    )


def _run(
    model: ModelSpec,
    text: TextInput,
    segmenter: Segmenter,
    target_length: float | None,
    target_segments: int | None,
    load: ModelLoader,
    progress: Progress | None,
) -> tuple[StrategyComparison, ScoredText, Solved | None]:
    """The text in segments, its scores, and what was solved for where there is a target."""
    strategy, max_length = segmenter.strategy, segmenter.max_length
    check_rule(strategy.name, strategy.parameters, max_length)
    check_features(segmenter)
    solves = target_length is not None or target_segments is not None
    if solves:
        solvable(strategy.name, target_length or 1, max_length, strategy.others)
    history = segmenter.feature if strategy.rule.needs == {"window"} else None
    request = CutRequest((("A", model),), text, (strategy,), max_length, segmenter.features, history)
    answered, memo = request.answered(Session(load, progress, 1 + len(request.extras()))), MemoCache()
    assert answered is not None
    side, solution = answered.sides(memo)[0], None
    if solves:
        inputs = side.inputs_for(segmenter)
        aim = target_length or length_of_segments(inputs, target_segments or 1, max_length)
        solution = solve(strategy.name, inputs, aim, max_length, POINTS, **strategy.others)
        request = replace(request, strategies=(Strategy.of(strategy.name, solution.parameters),))
    return text_bench(request, answered, None, memo), answered.scores[0], solution


def _figures(compared: StrategyComparison) -> tuple[str, ...]:
    """The figures that can be drawn: that of a limited history needs one."""
    return tuple(name for name in FIGURES if name != "history" or compared.request.history is not None)
