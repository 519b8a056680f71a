"""`micro-step segment` and `solve`: divide a text by strategies, and find the parameter for a mean length."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.options import (
    Out,
    TextOptions,
    check_output,
    figure_option,
    load_shown,
    print_answer,
    print_notes,
    progress,
    save_drawn,
)
from analysis.segmentation.options import ExtraRuns, SegmenterOptions, StoreOptions, StrategiesOptions, StrategyOptions
from analysis.segmentation.view import CutView
from model.command_options import LoadOptions, ModelOptions, ModelsOptions, flatten_options
from model.errors import MicroStepError

if TYPE_CHECKING:
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
    from analysis.segmentation.answer import segmented

    chosen = strategies.read()
    check_output(out, figure, FIGURE_NAMES)
    if figure is not None:
        _draw(figure, models.specs(loading), chosen, text, segmenter, source, extra, view, out)
        return
    specs = models.some(loading)
    if len(specs) > 1 or len(chosen) > 1 or source.store is not None:
        raise MicroStepError("the table shows one model and one strategy; use --figure to compare more")
    with progress("scoring") as tell:
        answer = segmented(specs[0][1], text.input(), segmenter.of_strategy(chosen[0]), view, load_shown, tell)
    print_answer(answer, None, out, f"{answer.raw.sides[0].facts.name}: ")


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
    window, history = extra.window, None
    if window is None and figure == "history":
        window = next((int(each.parameters["window"]) for each in strategies if "window" in each.rule.needs), None)
    features = segmenter.features(strategies, window is not None)
    if window is not None:
        history = Feature("window", window=window, method=features.history, stride=features.stride)
    read = text.input() if source.store is None else None
    request = CutRequest(specs, read, strategies, segmenter.max_length, features, history, source.store, source.number)
    with progress("scoring") as tell:
        compared = compare_strategies(request, load_shown, tell, extra.other_precision)
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
    view: CutView,
    target_length: Annotated[float | None, typer.Option(help="Mean number of tokens per segment.")] = None,
    target_segments: Annotated[
        int | None, typer.Option(min=1, help="Number of segments, in place of a mean length.")
    ] = None,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """Find the parameter of a strategy that gives a mean segment length, with the curve between the two."""
    from analysis.segmentation.answer import solved
    from model.segmentation.solver import solvable

    chosen = strategy.read()
    given = {name: chosen.parameters[name] for name in strategy.given()}
    solvable(chosen.name, target_length or 1, segmenter.max_length, given)
    check_output(out, figure, FIGURE_NAMES)
    whole, read = segmenter.of_strategy(chosen), text.input()
    with progress("scoring") as tell:
        answer = solved(model.spec(loading), read, whole, view, load_shown, tell, target_length, target_segments)
    print_answer(answer, figure, out)
