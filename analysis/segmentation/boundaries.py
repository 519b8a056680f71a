"""Where a strategy starts segments in one text: of all that a strategy gives, the least that other analyses need.

A strategy that looks at the text alone runs no model.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analysis.query import RunCost, scoring_cost
from analysis.segmentation.single import PROMPT_APART, gather, prompt_apart
from analysis.segmentation.strategy import Segmenter
from model.hub.loading import LoadedModel
from model.progress import Progress
from model.segmentation.features import FeatureOptions
from model.segmentation.segment import SegmentInputs, word_starts
from model.text.document import TextInput
from model.text.encoding import EncodedText


def starts_cost(loaded: LoadedModel, text: TextInput, segmenter: Segmenter) -> RunCost:
    """What `starts_of` takes: the scores, and what else the strategy needs."""
    feature = segmenter.feature
    passes = (0.0 if segmenter.only_text else 1.0) + (feature.passes if feature is not None else 0.0)
    found = scoring_cost(loaded, text, passes=passes)
    return found if passes else replace(found, work=0.0)


def starts_of(
    loaded: LoadedModel,
    encoded: EncodedText,
    text: TextInput,
    segmenter: Segmenter,
    progress: Progress | None = None,
) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
    """Segment a text.

    Args:
        loaded: the model.
        encoded: the text under it, N tokens.
        text: what is read.
        segmenter: the strategy and the cap M.
        progress: told the share done; may raise to stop.

    Returns:
        [N] where segments start, fewer where no more can be scored; and what a reader must know.

    Raises:
        MicroStepError: as `gather`.
    """
    if segmenter.only_text:
        inputs = _text_inputs(encoded, segmenter.features)
    else:
        inputs = gather(loaded, text, segmenter, progress).inputs
    notes = (PROMPT_APART,) if inputs.prompt is not None else ()
    return segmenter.segment(inputs).starts, notes


def _text_inputs(encoded: EncodedText, how: FeatureOptions) -> SegmentInputs:
    """What `word` and `fixed` look at, without scores: a token is missing where it would have none."""
    unscored: NDArray[np.float64] = np.zeros(len(encoded))
    unscored[: int(not encoded.prefix)] = np.nan
    return SegmentInputs(
        entropy=unscored,
        word_start=word_starts(encoded.text, encoded.start, encoded.continuation),
        prompt=encoded.role != "assistant" if prompt_apart(encoded, how) else None,
    )
