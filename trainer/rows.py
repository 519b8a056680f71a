"""Training rows: prepared examples cut by the recipe's strategy, those to train on and those only measured."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.learnt import Rows, cut
from data.prepared import Prepared
from model.errors import MicroStepError
from trainer.recipe import Segmentation


@dataclass(frozen=True)
class TrainingRows:
    """What is trained on, and what is only measured on."""

    train: Rows
    repeat: NDArray[np.int64]
    """[R] how often each row of `train` comes in an epoch."""
    held_out: Rows
    notes: tuple[str, ...]


def training_rows(prepared: Prepared, segmentation: Segmentation | None) -> TrainingRows:
    """Cut every prepared example.

    Args:
        prepared: examples and their scores.
        segmentation: the strategy; None: every token is a segment.

    Raises:
        MicroStepError: an unknown strategy or parameter, what it needs was not gathered, or nothing is left to learn.
    """
    notes = []
    if segmentation is None:
        every = cut(prepared, "fixed", {"k": 1}, 1)
    else:
        asked = segmentation
        every = cut(prepared, asked.rule, asked.parameters, asked.max_length, asked.target_length)
    rows = every.rows
    useful = np.add.reduceat(np.append(rows.learnt, False), rows.offsets[:-1]) * (rows.lengths > 0) > 0
    held_out = prepared.held_out[rows.example]
    train = rows.take(np.flatnonzero(useful & ~held_out))
    if not len(train):
        raise MicroStepError(f"{prepared.path} holds no response to learn; check the mix and max_tokens")
    if not useful.all():
        notes.append(f"{int((~useful).sum()):,} examples hold nothing to learn and are left out")
    if segmentation is not None:
        shown = ", ".join(f"{name} {value:.6g}" for name, value in every.parameters.items())
        mean = f"{train.mean_length:.3f} tokens on average"
        notes.append(f"segments: {every.rule}({shown}), at most {every.max_length}: {mean}")
    measured = rows.take(np.flatnonzero(useful & held_out))
    return TrainingRows(train, prepared.repeat[train.example], measured, tuple(notes))
