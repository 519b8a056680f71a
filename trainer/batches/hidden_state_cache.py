"""The states of a frozen base, computed once for all positions that a micro decoder is trained on.

    STATES/states.npy   [P, K, d] of the context layers, bfloat16 stored as int16
    STATES/states.json  written last: the inputs that decide them

They are read through the page cache, so they may be larger than the memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.training_rows import TokenRows
from model.atomic_files import as_json, atomic_write, make_folder, need_disk, read_json
from model.causal_lm.finite import check_states
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell
from trainer.batches.sampler import batch, token_batches

MARK, STATES = "states.json", "states.npy"
BATCH_TOKENS = {"cpu": 4096, "cuda": 32_768, "mps": 8192}


@dataclass(frozen=True)
class States:
    """Macro states of P positions. After position t of a row comes t + 1, which the base predicts itself."""

    rows: TokenRows
    states: NDArray[np.int16]  # [P, K, d] bits of bfloat16
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
        return self._at(self.states, chosen), torch.from_numpy(ids), torch.from_numpy(loss_mask)

    def last(self, chosen: NDArray[np.int64], count: int) -> tuple[Tensor, Tensor]:
        """Return the base's own predictions of the tokens 2 .. M after each of Q positions, as states.

        Returns:
            [Q, M - 1, d] bfloat16, its last states at the tokens before, and [Q, M - 1] bool, whether they are stored:
                the state
            before the last token of a text is not.
        """
        ahead = chosen[:, None] + np.arange(1, count)
        inside = np.minimum(ahead, len(self) - 1)
        stored = (ahead < len(self)) & (self.token[inside] == self.token[chosen, None] + np.arange(1, count))
        return self._at(self.states[:, -1], inside), torch.from_numpy(stored)

    @staticmethod
    def _at(states: NDArray[np.int16], chosen: NDArray[np.int64]) -> Tensor:
        """Gather bfloat16 rows with torch: on all cores, while other threads continue."""
        rows = torch.from_numpy(states).index_select(0, torch.from_numpy(chosen.ravel()))
        return rows.view(*chosen.shape, *rows.shape[1:]).view(torch.bfloat16)

    def of_rows(self, chosen: NDArray[np.int64], shape: tuple[int, ...], every: bool = False) -> Tensor:
        """Return [B, N, d] float32, the last states of B rows at every token; NaN where none is stored.

        With `every`, return [B, N, K, d], the states of all layers. States of the prompt, and the one before the last
        token of a text, are not stored.
        """
        layers = slice(None) if every else -1
        out = torch.full((*shape, *self.states[:0, layers].shape[1:]), float("nan"))
        for i, (at, stored) in enumerate(stored_in(self.rows, self.row, self.token, chosen)):
            found = torch.from_numpy(np.array(self.states[stored, layers]))
            out[i, torch.from_numpy(at)] = found.view(torch.bfloat16).float()
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
    at = np.arange(len(rows.ids) - 2)
    row = np.repeat(np.arange(len(rows)), rows.lengths)
    chosen = at[(row[at] == row[at + 2]) & rows.loss_mask[at + 1] & rows.loss_mask[at + 2]]
    return row[chosen], chosen


def stored_bytes(rows: TokenRows, model: MicroStepForCausalLM) -> int:
    """Return the size of these rows' states on disk, in bytes."""
    return len(positions(rows)[0]) * len(model.config.context_layers) * int(model.config.hidden_size) * 2


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


def load_or_compute_states(
    model: MicroStepForCausalLM, rows: TokenRows, path: Path, identity: dict[str, Any], tell: Tell
) -> States:
    """Compute the states, or read stored ones.

    Raises:
        TooLarge: the disk has no room.
        ExportError: the folder cannot be written.
    """
    row, token = positions(rows)
    shape = (len(row), len(model.config.context_layers), int(model.config.hidden_size))
    identity_used = {**identity, "shape": list(shape), "layers": list(model.config.context_layers)}
    if not len(row):  # for example nothing is held out; an empty file cannot be mapped
        return States(rows, np.zeros(shape, dtype=np.int16), row, token)
    if read_json(path / MARK) != identity_used:
        _compute(model, rows, token, shape, path, tell)
        atomic_write(path / MARK, as_json(identity_used))
    return States(rows, np.load(path / STATES, mmap_mode="c"), row, token)  # torch needs it writable


def _compute(
    model: MicroStepForCausalLM,
    rows: TokenRows,
    token: NDArray[np.int64],
    shape: tuple[int, int, int],
    path: Path,
    tell: Tell,
) -> None:
    make_folder(path)
    (path / MARK).unlink(missing_ok=True)
    size = 2 * int(np.prod(shape))
    need_disk(path, size + 2**28, "the states' file", "free some, lower data.limit or raise draft.every")
    out = np.lib.format.open_memmap(path / STATES, mode="w+", dtype=np.int16, shape=shape)
    for where, context in contexts(model, rows, token, tell):
        out[where] = context.to(torch.bfloat16).cpu().view(torch.int16).numpy()
    out.flush()


def contexts(
    model: MicroStepForCausalLM, rows: TokenRows, token: NDArray[np.int64], tell: Tell
) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Run the unmerged base over rows, and yield batches of indices of `token` [T] with the states there, [T, K, d]."""
    place = np.full(len(rows.ids), -1)
    place[token] = np.arange(len(token))
    done = 0
    for chosen in token_batches(np.argsort(rows.lengths, kind="stable"), rows.lengths, BATCH_TOKENS[model.device.type]):
        some = batch(rows, chosen).to(model.device)
        position = (some.mask.long().cumsum(1) - 1).clamp(min=0)
        with torch.inference_mode():
            context = model.macro(model.get_input_embeddings()(some.ids), some.mask, position).context  # [B, N, K, d]
        check_states(model.base, context[some.mask.bool()], "states")
        where = np.concatenate([np.arange(rows.offsets[i], rows.offsets[i + 1]) for i in chosen])
        stored = place[where] >= 0
        yield place[where[stored]], context[some.mask.bool()][torch.from_numpy(stored).to(context.device)]
        done += len(where)
        tell(f"states of the base: {done:,} of {len(rows.ids):,} tokens", done / len(rows.ids))
