"""Training rows: prepared examples segmented by the recipe's strategy, for training and for validation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.prepared import Prepared, beside, read_prepared
from data.segmentation_config import SegmentationConfig
from data.training_rows import TokenRows, segment_as_under, segment_examples
from model.errors import MicroStepError
from trainer.recipe import Recipe


@dataclass(frozen=True)
class TrainingRows:
    """The rows for training, and the rows for validation only."""

    train: TokenRows
    repeat: NDArray[np.int64]  # [R] number of times that each row of `train` occurs in an epoch
    held_out: TokenRows
    notes: tuple[str, ...]


def training_rows(
    prepared: Prepared, segmentation: SegmentationConfig | None, without: Sequence[str] = ()
) -> TrainingRows:
    """Segment every prepared example. Its row begins with what the base reads before every text, such as BOS.

    Args:
        prepared: examples and their scores.
        segmentation: the strategy; None: every token is a segment.
        without: sources to leave out of training. Their examples are segmented too, and those held out are used for
            validation, so neither a solved threshold nor the validation depends on what is left out.
    """
    notes = []
    if segmentation is None:
        segmented = segment_examples(prepared, "fixed", {"k": 1}, 1)
    else:
        config = segmentation
        how = config.rule, config.parameters, config.max_length, config.target_length
        if config.under is None:
            segmented = segment_examples(prepared, *how)
        else:
            segmented = segment_as_under(prepared, read_prepared(beside(prepared.path, config.under)), *how)
    rows = segmented.rows.after(prepared.source.store.prefix)
    useful = rows.loss_tokens > 0
    held_out = prepared.held_out[rows.example]
    left_out = prepared.from_sources(without)[rows.example]
    train = rows.take(np.flatnonzero(useful & ~held_out & ~left_out))
    if not len(train):
        hint = "check data.without" if without else "check the mix and max_tokens"
        raise MicroStepError(f"{prepared.path} holds no response to learn; {hint}")
    if not useful.all():
        notes.append(f"{int((~useful).sum()):,} examples have no tokens to learn and are left out")
    if without:
        notes.append(f"{int((useful & ~held_out & left_out).sum()):,} examples of {', '.join(without)} are left out")
    if segmentation is not None:
        shown = ", ".join(f"{name} {value:.6g}" for name, value in segmented.parameters.items())
        mean = f"{train.mean_length:.3f} tokens on average"
        notes.append(f"segments: {segmented.rule}({shown}), at most {segmented.max_length}: {mean}")
    measured = rows.take(np.flatnonzero(useful & held_out))
    return TrainingRows(train, prepared.repeat[train.example], measured, tuple(notes))


def solved(prepared: Prepared, segmentation: SegmentationConfig) -> SegmentationConfig:
    """Return the strategy with the parameters that were solved for on this data, for use on other data."""
    if segmentation.target_length is None:
        return segmentation
    read = prepared if segmentation.under is None else read_prepared(beside(prepared.path, segmentation.under))
    how = segmentation.rule, segmentation.parameters, segmentation.max_length, segmentation.target_length
    parameters = dict(segment_examples(read, *how).parameters)
    return segmentation.model_copy(update={"parameters": parameters, "target_length": None})


def rows_of(prepared: Prepared, recipe: Recipe) -> TrainingRows:
    """Segment every prepared example as a recipe says."""
    segmentation = recipe.segmentation if recipe.is_segmented else None
    return training_rows(prepared, segmentation, recipe.data.without)
