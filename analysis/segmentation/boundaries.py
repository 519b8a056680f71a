"""Where a strategy starts segments in one text: of all that a strategy gives, the least that other analyses need.

A strategy that looks at the text alone runs no model.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.query import RunCost, scoring_cost
from analysis.segmentation.features import FeatureOptions, features_needed
from analysis.segmentation.single import PROMPT_APART, gather, prompt_apart
from analysis.segmentation.strategy import Strategy
from model.causal_lm.forward import Progress
from model.hub.loading import LoadedModel
from model.segmentation.segment import SegmentInputs, segment, word_starts
from model.text.document import TextInput
from model.text.encoding import EncodedText

DEFAULT = Strategy.of("word")  # needs no scores, and so no run of the model


def only_text(strategy: Strategy) -> bool:
    """Whether a strategy looks at no score."""
    return strategy.rule.needs <= {"text"}


def starts_cost(
    loaded: LoadedModel,
    text: TextInput,
    strategy: Strategy,
    max_length: int,
    how: FeatureOptions,
) -> RunCost:
    """What `starts_of` takes: the scores, and what else the strategy needs."""
    extra = features_needed(strategy.name, strategy.parameters, max_length, how)
    passes = (0.0 if only_text(strategy) else 1.0) + (extra.passes if extra is not None else 0.0)
    found = scoring_cost(loaded, text, passes=passes)
    return found if passes else replace(found, work=0.0)


def starts_of(
    loaded: LoadedModel,
    encoded: EncodedText,
    text: TextInput,
    strategy: Strategy,
    max_length: int,
    how: FeatureOptions,
    progress: Progress | None = None,
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Cut a text.

    Args:
        loaded: the model.
        encoded: the text under it, N tokens.
        text: what is read.
        strategy: the rule and its parameters.
        max_length: M.
        how: choices that are no parameters of the rule.
        progress: told the share done; may raise to stop.

    Returns:
        [N] where segments start, fewer where no more can be scored; and what a reader must know.

    Raises:
        MicroStepError: as `gather`.
    """
    rule, parameters = strategy.name, strategy.parameters
    if only_text(strategy):
        inputs = _text_inputs(encoded, how)
    else:
        inputs = gather(loaded, text, rule, parameters, max_length, how, progress).inputs
    notes = (PROMPT_APART,) if inputs.prompt is not None else ()
    return segment(rule, inputs, max_length, **parameters).starts, notes


def _text_inputs(encoded: EncodedText, how: FeatureOptions) -> SegmentInputs:
    """What `word` and `fixed` look at, without scores: a token is missing where it would have none."""
    unscored: NDArray[np.float64] = np.zeros(len(encoded))
    unscored[: int(not encoded.prefix)] = np.nan
    return SegmentInputs(
        entropy=unscored,
        word_start=word_starts(encoded.text, encoded.start, encoded.continuation),
        prompt=encoded.role != "assistant" if prompt_apart(encoded, how) else None,
    )
