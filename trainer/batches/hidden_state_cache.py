"""The states of a frozen base that a micro decoder is trained on, and those of a teacher, as they were kept.

They are kept beside the scores of the prepared data, for all examples, mostly by the pass that scored these
(data/states). They are read through the page cache, so they may be larger than the memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.learned import draft_positions, kept_positions
from data.prepared import Prepared
from data.states.files import Parts
from data.training_rows import TokenRows
from model.errors import TextError
from model.micro_step.modeling import MicroStepForCausalLM


@dataclass(frozen=True)
class States:
    """Macro states of P positions. After position t of a row comes t + 1, which the base predicts itself."""

    rows: TokenRows
    states: Parts  # [P', K, d] bfloat16, of all positions that are kept
    place: NDArray[np.int64]  # [P] where a position's states are
    row: NDArray[np.int64]  # [P]
    token: NDArray[np.int64]  # [P] index in `rows.ids`

    def __len__(self) -> int:
        return len(self.row)

    def following(self, chosen: NDArray[np.int64], count: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return [Q, M], the ids of the M tokens after each of Q positions, and [Q, M] bool, whether they count."""
        after = self.token[chosen, None] + np.arange(1, count + 1)
        end = self.rows.offsets[self.row[chosen] + 1]
        inside = after < end[:, None]
        after = np.minimum(after, end[:, None] - 1)
        return self.rows.ids[after], inside & self.rows.loss_mask[after]

    def read(self, chosen: NDArray[np.int64], count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return [Q, K, d] bfloat16 states of Q positions, and the result of `following` as tensors."""
        ids, loss_mask = self.following(chosen, count)
        return self.states.take(self.place[chosen]), torch.from_numpy(ids), torch.from_numpy(loss_mask)

    def last(self, chosen: NDArray[np.int64], count: int) -> tuple[Tensor, Tensor]:
        """Return the base's own predictions of the tokens 2 .. M after each of Q positions, as states.

        Returns:
            [Q, M - 1, d] bfloat16, its last states at the tokens before, and [Q, M - 1] bool, whether they are stored:
                the state before the last token of a text is not.
        """
        ahead = chosen[:, None] + np.arange(1, count)
        inside = np.minimum(ahead, len(self) - 1)
        stored = (ahead < len(self)) & (self.token[inside] == self.token[chosen, None] + np.arange(1, count))
        states = self.states.take(self.place[inside.ravel()], layer=-1)
        return states.view(*inside.shape, -1), torch.from_numpy(stored)

    def of_rows(self, chosen: NDArray[np.int64], shape: tuple[int, ...], every: bool = False) -> Tensor:
        """Return [B, N, d] float32, the last states of B rows at every token; NaN where none is stored.

        With `every`, return [B, N, K, d], the states of all layers. States of the prompt, and the one before the last
        token of a text, are not stored.
        """
        layer = None if every else -1
        nothing = self.states.take(self.place[:0], layer)
        out = torch.full((*shape, *nothing.shape[1:]), float("nan"))
        for i, (at, stored) in enumerate(stored_in(self.rows, self.row, self.token, chosen)):
            out[i, torch.from_numpy(at)] = self.states.take(self.place[stored], layer).float()
        return out


def stored_in(
    rows: TokenRows, row: NDArray[np.int64], token: NDArray[np.int64], chosen: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], slice]]:
    """Yield, of each chosen row, the places in it of the positions that are stored, and where these are stored.

    Args:
        rows: all rows.
        row: [P] of each position, rising.
        token: [P] of each position, its index in `rows.ids`.
        chosen: [B] rows.
    """
    first, end = (np.searchsorted(row, chosen, side) for side in ("left", "right"))
    for number, a, b in zip(chosen, first, end, strict=True):
        yield token[a:b] - rows.offsets[number], slice(a, b)


def positions(rows: TokenRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return [P] rows and [P] tokens at which a draft may begin: the two tokens after them are learned."""
    return draft_positions(rows.loss_mask, rows.offsets)


def kept_count(prepared: Prepared) -> int:
    """Return the number of positions whose states are kept, over all examples."""
    return len(kept_positions(prepared.source.tokens.rows)[0])


def places(prepared: Prepared, rows: TokenRows, kept: int) -> NDArray[np.int64]:
    """Return [P] where the states of each of `positions(rows)` are among the kept ones of all examples.

    Args:
        prepared: the examples.
        rows: some of them.
        kept: number of positions in the files, which must be that of the examples.

    Raises:
        TextError: it is another number.
    """
    whole = prepared.source.tokens.rows
    row, _ = kept_positions(whole)
    if len(row) != kept:
        raise TextError(f"{kept:,} states are kept of the {len(row):,} in {prepared.path}; remove its states")
    first = np.searchsorted(row, np.argsort(whole.document, kind="stable"))  # of each example
    mine, _ = positions(rows)
    begin = np.searchsorted(mine, np.arange(len(rows)))
    return first[rows.example[mine]] + np.arange(len(mine)) - begin[mine]


@contextmanager
def adapter_disabled(model: MicroStepForCausalLM) -> Iterator[None]:
    """Disable the base's adapter, which may have been trained before, in a block."""
    if model.config.adapter is None:
        yield
        return
    model.base.disable_adapters()
    try:
        yield
    finally:
        model.base.enable_adapters()
