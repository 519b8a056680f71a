"""Training rows: prepared examples cut by the recipe's strategy, those to train on and those only measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.prepared import Prepared
from data.segmentation_config import SegmentationConfig
from data.training_rows import TokenRows, cut
from model.errors import MicroStepError
from trainer.recipe import Recipe


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on, and what is only measured on."""

    train: TokenRows
    repeat: NDArray[np.int64]
    """[R] how often each row of `train` comes in an epoch."""
    held_out: TokenRows
    notes: tuple[str, ...]


def training_rows(
    prepared: Prepared, segmentation: SegmentationConfig | None, without: Sequence[str] = ()
) -> TrainingRows:
    """Cut every prepared example.

    Args:
        prepared: examples and their scores.
        segmentation: the strategy; None: every token is a segment.
        without: sources that are not trained on. Their examples are cut all the same, and those held out are measured:
            a threshold that is solved for, and what is measured, do not depend on what is left out.

    Raises:
        MicroStepError: an unknown strategy or parameter, what it needs was not gathered, a source that is not there, or
            nothing is left to learn.
    """
    notes = []
    if segmentation is None:
        every = cut(prepared, "fixed", {"k": 1}, 1)
    else:
        asked = segmentation
        every = cut(prepared, asked.rule, asked.parameters, asked.max_length, asked.target_length)
    rows = every.rows
    useful = rows.learnt_tokens > 0
    held_out = prepared.held_out[rows.example]
    left_out = prepared.of(without)[rows.example]
    train = rows.take(np.flatnonzero(useful & ~held_out & ~left_out))
    if not len(train):
        what = "check data.without" if without else "check the mix and max_tokens"
        raise MicroStepError(f"{prepared.path} holds no response to learn; {what}")
    if not useful.all():
        notes.append(f"{int((~useful).sum()):,} examples hold nothing to learn and are left out")
    if without:
        notes.append(f"{int((useful & ~held_out & left_out).sum()):,} examples of {', '.join(without)} are left out")
    if segmentation is not None:
        shown = ", ".join(f"{name} {value:.6g}" for name, value in every.parameters.items())
        mean = f"{train.mean_length:.3f} tokens on average"
        notes.append(f"segments: {every.rule}({shown}), at most {every.max_length}: {mean}")
    measured = rows.take(np.flatnonzero(useful & held_out))
    return TrainingRows(train, prepared.repeat[train.example], measured, tuple(notes))


def rows_of(prepared: Prepared, recipe: Recipe) -> TrainingRows:
    """Cut every prepared example as a recipe says.

    Raises:
        MicroStepError: as `training_rows`.
    """
    segmentation = recipe.segmentation if recipe.objective == "micro_step" else None
    return training_rows(prepared, segmentation, recipe.data.without)
