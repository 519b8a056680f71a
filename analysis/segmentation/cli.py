"""`micro-step segment` and `solve`: divide a text by strategies, and find the parameter for a mean length."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.options import (
    Out,
    TextOptions,
    check_output,
    check_table,
    figure_option,
    load_shown,
    print_notes,
    print_or_save,
    progress,
    save_drawn,
)
from analysis.segmentation.options import ExtraRuns, SegmenterOptions, StoreOptions, StrategiesOptions, StrategyOptions
from analysis.segmentation.view import CutView
from model.command_options import LoadOptions, ModelOptions, ModelsOptions, flatten_options
from model.errors import MicroStepError

if TYPE_CHECKING:
    from analysis.segmentation.single import Segmentable
    from analysis.segmentation.strategy import Strategy
    from model.hub.loading import ModelSpec

FIGURE_NAMES = ("segments", "values", "statistics", "agreement", "lengths", "curves", "unstable", "history")


@flatten_options
def segment_command(
    models: ModelsOptions,
    strategies: StrategiesOptions,
    text: TextOptions,
    loading: LoadOptions,
    segmenter: SegmenterOptions,
    source: StoreOptions,
    extra: ExtraRuns,
    view: CutView,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """Divide a text into segments: the table of scores with value, starts_segment and segment.

    With --figure, draw several strategies side by side, of one model, of two, or of a store of scores.
    """
    from analysis.segmentation.single import segment_table
    from model.segmentation.segment import segment

    chosen = strategies.read()
    check_output(out, figure, FIGURE_NAMES)
    if figure is not None:
        _draw(figure, models.specs(loading), chosen, text, segmenter, source, extra, view, out)
        return
    specs = models.some(loading)
    if len(specs) > 1 or len(chosen) > 1 or source.store is not None:
        raise MicroStepError("the table is of one model and one strategy; more are compared with --figure")
    ready = _gather(specs[0][1], text, segmenter, chosen[0])
    found = segment(chosen[0].name, ready.inputs, segmenter.max_length, **chosen[0].parameters)
    caption = (
        f"{len(found)} tokens of {ready.scored.facts.name} in {int(found.starts.sum())} segments by {chosen[0].name},"
        f" values in {view.unit}"
    )
    print_or_save(segment_table(ready.scored, found, view.unit), out, caption)


def _draw(
    figure: str,
    specs: tuple[tuple[str, ModelSpec], ...],
    strategies: tuple[Strategy, ...],
    text: TextOptions,
    segmenter: SegmenterOptions,
    source: StoreOptions,
    extra: ExtraRuns,
    view: CutView,
    out: Path | None,
) -> None:
    from analysis.segmentation.comparison import compare_strategies
    from analysis.segmentation.figures import draw
    from analysis.segmentation.provenance import origin
    from analysis.segmentation.request import CutRequest
    from model.segmentation.features import Feature

    if (source.store is None) == (not specs):
        raise MicroStepError("give a model with --model, two with --a and --b, or a store with --store")
    if source.store is not None and text.given:
        raise MicroStepError("a store holds its own texts; leave --text out")
    window = extra.window
    if window is None and figure == "history":
        window = next((int(each.parameters["window"]) for each in strategies if "window" in each.rule.needs), None)
    features = segmenter.features(strategies, window is not None)
    request = CutRequest(
        specs,
        text.input() if source.store is None else None,
        strategies,
        segmenter.max_length,
        features,
        None if window is None else Feature("window", window=window, method=features.history, stride=features.stride),
        source.store,
        source.number,
    )
    with progress("scoring") as told:
        compared = compare_strategies(request, load_shown, told, extra.other_precision)
    for side in compared.sides:
        print_notes(f"{side.key} {side.facts.name}: ", side.notes)
    save_drawn(draw(figure, compared, view), out, origin(compared, view))


@flatten_options
def solve_command(
    model: ModelOptions,
    strategy: StrategyOptions,
    text: TextOptions,
    loading: LoadOptions,
    segmenter: SegmenterOptions,
    target_length: Annotated[float | None, typer.Option(help="Mean tokens a segment.")] = None,
    target_segments: Annotated[int | None, typer.Option(min=1, help="Or the number of segments.")] = None,
    out: Out = None,
) -> None:
    """Find the parameter of a strategy that gives a mean segment length, with the curve between the two."""
    from analysis.segmentation.single import curve_table, finding
    from model.segmentation.solver import POINTS, length_of_segments, solvable, solve

    chosen = strategy.read()
    if (target_length is None) == (target_segments is None):
        raise MicroStepError("give what is aimed at with --target-length or with --target-segments, one of them")
    given = {name: chosen.parameters[name] for name in strategy.given()}
    solvable(chosen.name, target_length or 1, segmenter.max_length, given)
    check_table(out)
    ready = _gather(model.spec(loading), text, segmenter, chosen)
    aim = target_length or length_of_segments(ready.inputs, target_segments or 1, segmenter.max_length)
    solved = solve(chosen.name, ready.inputs, aim, segmenter.max_length, POINTS, **given)
    if out is not None:
        print_notes("", (finding(solved),))
    print_or_save(curve_table(solved), out, finding(solved))


def _gather(spec: ModelSpec, text: TextOptions, segmenter: SegmenterOptions, strategy: Strategy) -> Segmentable:
    from analysis.segmentation.single import gather
    from analysis.segmentation.strategy import Segmenter

    whole = Segmenter(strategy, segmenter.max_length, segmenter.features([strategy]))
    read = text.input()
    loaded = load_shown(spec)
    with progress("scoring") as told:
        ready = gather(loaded, read, whole, told)
    print_notes(f"{ready.scored.facts.name}: ", ready.notes)
    return ready
