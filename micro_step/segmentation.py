"""`segment` and `solve`: a text in segments, and the parameter of a strategy that gives a mean length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from analysis.answer import Result
from analysis.query import Session
from analysis.score_registry import Unit, significant
from analysis.segmentation.comparison import StrategyComparison, text_bench
from analysis.segmentation.figures import FIGURES, draw
from analysis.segmentation.provenance import origin
from analysis.segmentation.request import CutRequest
from analysis.segmentation.segmented_text import MemoCache
from analysis.segmentation.single import curve_table, finding, segment_table
from analysis.segmentation.strategy import Segmenter, Strategy, check_rule
from analysis.segmentation.view import CutView
from analysis.uncertainty.result import ScoredText
from micro_step.inputs import ModelLike, Models, TextLike, as_strategy, as_text_input
from model.arguments import checked
from model.errors import MicroStepError
from model.scoring.scores import Method
from model.segmentation.features import FeatureOptions
from model.segmentation.segment import MAX_LENGTH
from model.segmentation.solver import POINTS, Solved, length_of_segments, solvable
from model.segmentation.solver import solve as solve_rule
from model.text.document import TextInput


@checked
def segment(
    model: ModelLike,
    text: TextLike,
    strategy: str | Strategy = "entropy",
    *,
    target_length: float | None = None,
    max_length: int = MAX_LENGTH,
    prompt_apart: bool | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    history_method: Method = "exact",
    history_stride: int = 16,
    chat: bool = False,
    force_bos: bool = False,
    unit: Unit = "nats",
) -> Result[StrategyComparison]:
    """Divide a text into segments.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        strategy: `entropy:threshold=1.2`, or the name of a rule alone; parameters are in nats.
        target_length: mean tokens per segment; solves for the parameter that gives it.
        max_length: M, the most tokens that a segment has.
        prompt_apart: each token that the assistant did not write is a segment. None: in a chat that holds an answer.
        layers: of the attention strategies, from 0. None: all.
        heads: of the attention strategies, from 0. None: all.
        history_method: of limited_history: exact, strided or banded.
        history_stride: of strided: a window every so many tokens.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        unit: bits or nats, of the values that the strategy compares.

    Returns:
        A row a token in `table`: the scores, with value, starts_segment and segment.

    Raises:
        MicroStepError: the model, the text or the strategy cannot be read, or the target cannot be reached.
    """
    features = FeatureOptions(_numbers(layers), _numbers(heads), history_method, history_stride, prompt_apart)
    bench, scored, _ = _segmented(
        model, as_text_input(text, chat, force_bos), strategy, target_length, None, max_length, features
    )
    (found,) = bench.shown
    mean = bench.mean_length(found)
    segments = int(found.found.starts.sum())
    return Result(
        "segment",
        bench,
        _figures(bench),
        CutView(unit=unit),
        lambda: segment_table(scored, found.found, unit),
        lambda: (
            f"{len(found.found):,} tokens of {scored.facts.name} in {segments:,} segments by"
            f" {found.strategy.title(unit)}; {significant(mean.mean)} tokens per segment"
        ),
        lambda name, view: draw(name, bench, view),
        lambda _, view: origin(bench, view),
        bench.sides[0].notes,
    )


@checked
def solve(
    model: ModelLike,
    text: TextLike,
    strategy: str | Strategy = "entropy",
    *,
    target_length: float | None = None,
    target_segments: int | None = None,
    max_length: int = MAX_LENGTH,
    prompt_apart: bool | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    history_method: Method = "exact",
    history_stride: int = 16,
    chat: bool = False,
    force_bos: bool = False,
    unit: Unit = "nats",
) -> Result[Solved]:
    """Find the parameter of a strategy that gives a mean segment length, or a number of segments.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        strategy: as in `segment`; the parameter that is solved for is not read.
        target_length: mean tokens per segment.
        target_segments: number of segments, instead of their length.
        max_length: M, the most tokens that a segment has.
        prompt_apart: as in `segment`.
        layers: as in `segment`.
        heads: as in `segment`.
        history_method: as in `segment`.
        history_stride: as in `segment`.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        unit: bits or nats, in figures.

    Returns:
        The curve from the parameter to the mean length in `table`; `raw.parameters` is the solution.

    Raises:
        MicroStepError: as `segment`, or there is not exactly one target.
    """
    if (target_length is None) == (target_segments is None):
        raise MicroStepError("give target_length or target_segments, one of them")
    if target_segments is not None and target_segments < 1:
        raise MicroStepError(f"target_segments must be at least 1, got {target_segments}")
    features = FeatureOptions(_numbers(layers), _numbers(heads), history_method, history_stride, prompt_apart)
    bench, _, solved = _segmented(
        model, as_text_input(text, chat, force_bos), strategy, target_length, target_segments, max_length, features
    )
    assert solved is not None
    return Result(
        "solve",
        solved,
        ("curves", *(name for name in _figures(bench) if name != "curves")),
        CutView(unit=unit),
        lambda: curve_table(solved),
        lambda: finding(solved),
        lambda name, view: draw(name, bench, view),
        lambda _, view: origin(bench, view),
        bench.sides[0].notes,
    )


def _segmented(
    model: ModelLike,
    text: TextInput,
    strategy: str | Strategy,
    target_length: float | None,
    target_segments: int | None,
    max_length: int,
    features: FeatureOptions,
) -> tuple[StrategyComparison, ScoredText, Solved | None]:
    """The text in segments, its scores, and what was solved for where there is a target."""
    chosen = as_strategy(strategy)
    check_rule(chosen.name, chosen.parameters, max_length)
    solves = target_length is not None or target_segments is not None
    if solves:
        solvable(chosen.name, target_length or 1, max_length, chosen.others)
    feature = Segmenter(chosen, max_length, features).feature
    history = feature if feature is not None and feature.need == "window" else None
    models = Models()
    request = CutRequest((("A", models.spec(model)),), text, (chosen,), max_length, features, history)
    answered, kept = request.answered(Session(models.load)), MemoCache()
    assert answered is not None
    sides, scored = answered.sides(kept), answered.scores[0]
    solved = None
    if solves:
        inputs = sides[0].inputs_for(request.segmenter(chosen))
        aim = target_length or length_of_segments(inputs, target_segments or 1, max_length)
        solved = solve_rule(chosen.name, inputs, aim, max_length, POINTS, **chosen.others)
        request = replace(request, strategies=(Strategy.of(chosen.name, solved.parameters),))
    return text_bench(request, answered, None, kept), scored, solved


def _figures(bench: StrategyComparison) -> tuple[str, ...]:
    """The figures that can be drawn: that of a limited history needs one."""
    return tuple(name for name in FIGURES if name != "history" or bench.request.history is not None)


def _numbers(given: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if given is None else tuple(given)
