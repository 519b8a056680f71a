"""Bits per byte of every held-out document under a finished run, in all and by place in the segment.

Places are the model's own units, tokens or bytes, from 0: the first of a segment.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from data.prepared import Prepared
from data.run_folder import Run
from data.training_rows import TokenRows
from trainer.batches.dataset import rows_of
from trainer.batches.sampler import batch
from trainer.budgets.flops import training_flops
from trainer.final_eval import trained_model
from trainer.objectives import objective_over_rows, positions_of
from trainer.recipe import Recipe

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class DocumentBits:
    """D held-out documents, in the order of their examples, and M places in a segment."""

    example: NDArray[np.int64]  # [D]
    bits: Floats  # [D, M] of the learned tokens at each place
    size: Floats  # [D, M] their bytes
    macro_steps: Floats  # [D] segments of learned tokens
    operations: Floats  # [D] of a training step on the document alone, by formula

    @property
    def bits_per_byte(self) -> float:
        return float(self.bits.sum() / self.size.sum())

    @property
    def bytes_per_macro_step(self) -> float:
        return float(self.size.sum() / self.macro_steps.sum())

    @property
    def operations_per_byte(self) -> float:
        return float(self.operations.sum() / self.size.sum())


@torch.inference_mode()
def document_bits(done: Run, recipe: Recipe, prepared: Prepared, device: str) -> DocumentBits:
    """Read every held-out document alone under the saved model."""
    rows = rows_of(prepared, recipe).held_out
    model = trained_model(done, recipe, device)
    objective, places = objective_over_rows(model), positions_of(model)
    bits, size = np.zeros((len(rows), places)), np.zeros((len(rows), places))
    steps, operations = np.zeros(len(rows)), np.zeros(len(rows))
    for i in range(len(rows)):
        part = batch(rows, np.array([i])).to(model.device)
        tally = objective(part, (1, 1))[1]
        bits[i] = tally.position[1].cpu().numpy() / np.log(2)
        learned, place, counts = _places(rows, i, places)
        np.add.at(size[i], place[learned], _bytes(prepared, rows, i)[learned])
        steps[i] = counts
        operations[i] = training_flops(model, part)
    return DocumentBits(rows.example, bits, size, steps, operations)


def _places(rows: TokenRows, row: int, places: int) -> tuple[NDArray[np.bool_], NDArray[np.int64], int]:
    """[n] whether each token of a row is learned, [n] its place, and the number of segments of learned tokens."""
    one = slice(int(rows.offsets[row]), int(rows.offsets[row + 1]))
    learned, starts = rows.loss_mask[one].copy(), rows.starts[one]
    learned[:1] = False
    order = np.arange(len(learned))
    place = order - np.maximum.accumulate(np.where(starts, order, 0))
    # A model without segments takes a step for each token.
    return learned, place if places > 1 else np.zeros_like(place), int(learned[starts].sum())


def _bytes(prepared: Prepared, rows: TokenRows, row: int) -> NDArray[np.int64]:
    """[n] UTF-8 bytes of each token of a row; those of a character that is split over tokens count once, at the first.

    A literal line break counts as the two bytes that the model reads.
    """
    scored = prepared.source.tokens.rows
    (index,) = np.flatnonzero(scored.document == rows.example[row])
    first, n = int(scored.offsets[index]), int(rows.lengths[row]) - rows.prefix
    start, end = (each[first : first + n].astype(np.int64) for each in (scored.start, scored.end))
    text, before = scored.text[index], int(scored.text_start[index])
    upto = np.concatenate([[0], np.cumsum([len(character.encode()) for character in text])])
    inside = (start >= 0) & (end > start)
    a, b = (np.where(inside, each - before, 0) for each in (start, end))
    reached = np.concatenate([[0], np.maximum.accumulate(b)[:-1]])
    size = np.where(inside, upto[np.maximum(b, reached)] - upto[np.maximum(a, reached)], 0)
    return np.concatenate([np.zeros(rows.prefix, dtype=size.dtype), size])
