"""`segment` and `solve`: a text in segments, and the parameter of a strategy that gives a mean length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analysis.answer import Result
from analysis.score_registry import Unit
from analysis.segmentation.answer import compared, segmented, solved
from analysis.segmentation.comparison import StrategyComparison
from analysis.segmentation.request import CutRequest
from analysis.segmentation.strategy import Segmenter, Strategy
from analysis.segmentation.view import CutView
from micro_step.inputs import ModelLike, Models, TextLike, as_strategy, as_text_input
from model.arguments import checked
from model.errors import MicroStepError
from model.scoring.scores import Method
from model.segmentation.features import Feature, FeatureOptions
from model.segmentation.segment import MAX_LENGTH
from model.segmentation.solver import Solved


@checked
def segment(
    model: ModelLike,
    text: TextLike,
    strategy: str | Strategy | Sequence[str | Strategy] = "entropy",
    *,
    b: ModelLike | None = None,
    target_length: float | None = None,
    max_length: int = MAX_LENGTH,
    prompt_apart: bool | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    history_method: Method = "exact",
    history_stride: int = 16,
    window: int | None = None,
    other_precision: bool = False,
    chat: bool = False,
    force_bos: bool = False,
    unit: Unit = "nats",
) -> Result[StrategyComparison]:
    """Divide a text into segments, by one strategy, or by several side by side.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        strategy: `entropy:threshold=1.2`, or the name of a rule alone; parameters are in nats. A list compares several.
        b: a second model, for a comparison.
        target_length: mean tokens per segment; solves for the parameter of one strategy that gives it.
        max_length: M, the most tokens that a segment has.
        prompt_apart: each token that the assistant did not write is a segment. None: in a chat that holds an answer.
        layers: of the attention strategies, from 0. None: all.
        heads: of the attention strategies, from 0. None: all.
        history_method: of limited_history: exact, strided or banded.
        history_stride: of strided: a window every so many tokens.
        window: of a comparison: entropy with so many tokens of history, beside that with all, in the figure history.
        other_precision: of a comparison: run the models in bfloat16 (or float32), too, for the figure unstable.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        unit: bits or nats, of the values that the strategy compares.

    Returns:
        A row a token in `table`: the scores, with value, starts_segment and segment. Of a comparison, a row a model and
        strategy: the mean length, singletons and agreement with words.

    Raises:
        MicroStepError: the model, the text or the strategy cannot be read, the target cannot be reached, or a
            comparison is given one.
    """
    models = Models()
    features = FeatureOptions(_numbers(layers), _numbers(heads), history_method, history_stride, prompt_apart)
    read = as_text_input(text, chat, force_bos)
    given: Sequence[Any] = strategy if isinstance(strategy, list | tuple) else [strategy]
    listed = [as_strategy(each) for each in given]
    if not listed:
        raise MicroStepError("give one strategy, or several")
    if len(listed) != 1 or b is not None or window is not None or other_precision:
        if target_length is not None:
            raise MicroStepError("a target length is solved for one strategy and one model; use solve")
        history = None
        if window is not None:
            history = Feature("window", window=window, method=history_method, stride=history_stride)
        request = CutRequest(models.named(model, b), read, tuple(listed), max_length, features, history)
        return compared(request, CutView(unit=unit), models.load, None, other_precision)
    segmenter = Segmenter(listed[0], max_length, features)
    return segmented(models.spec(model), read, segmenter, CutView(unit=unit), models.load, None, target_length)


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
        unit: bits or nats, of the parameter in the table, and in figures.

    Returns:
        The curve from the parameter to the mean length in `table`; `raw.parameters` is the solution.

    Raises:
        MicroStepError: as `segment`, or there is not exactly one target.
    """
    models = Models()
    features = FeatureOptions(_numbers(layers), _numbers(heads), history_method, history_stride, prompt_apart)
    segmenter, read = Segmenter(as_strategy(strategy), max_length, features), as_text_input(text, chat, force_bos)
    targets = target_length, target_segments
    return solved(models.spec(model), read, segmenter, CutView(unit=unit), models.load, None, *targets)


def _numbers(given: Sequence[int] | None) -> tuple[int, ...] | None:
    return None if given is None else tuple(given)
