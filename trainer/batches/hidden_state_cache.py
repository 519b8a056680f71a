"""The states of a base that stays as it is, computed once for all positions that a micro decoder is trained on.

    STATES/states.npy   [P, K, d] of the context layers, bfloat16 as int16
    STATES/states.json  written last: what they are of

They are read through the page cache, so that they may be larger than the memory.
"""

from __future__ import annotations

import json
import shutil
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
from model.atomic_files import as_json, atomic_write
from model.causal_lm.finite import check_states
from model.errors import TooLarge
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell
from trainer.batches.sampler import batch, cut

MARK, STATES = "states.json", "states.npy"
BATCH_TOKENS = {"cpu": 4096, "cuda": 32_768, "mps": 8192}


@dataclass(frozen=True)
class States:
    """Macro states of P positions: position t of a row is followed there by t + 1, which the base predicts itself."""

    rows: TokenRows
    states: NDArray[np.int16]  # [P, K, d] bits of bfloat16
    row: NDArray[np.int64]  # [P]
    token: NDArray[np.int64]  # [P] index in `rows.ids`

    def __len__(self) -> int:
        return len(self.row)

    def following(self, chosen: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """[Q, M] the ids of the M tokens after each of Q positions, and [Q, M] whether they are learnt."""
        after = self.token[chosen, None] + np.arange(1, most + 1)
        end = self.rows.offsets[self.row[chosen] + 1]
        there = after < end[:, None]
        after = np.minimum(after, end[:, None] - 1)
        return self.rows.ids[after], there & self.rows.learnt[after]

    def read(self, chosen: NDArray[np.int64], most: int) -> tuple[Tensor, Tensor, Tensor]:
        """[Q, K, d] bfloat16 states of Q positions, and as tensors what `following` gives."""
        ids, learnt = self.following(chosen, most)
        return self._at(self.states, chosen), torch.from_numpy(ids), torch.from_numpy(learnt)

    def last(self, chosen: NDArray[np.int64], most: int) -> tuple[Tensor, Tensor]:
        """What the base itself expects of the tokens 2 .. M after each of Q positions.

        Returns:
            [Q, M - 1, d] bfloat16, its last states at the tokens before, and [Q, M - 1] whether they are stored: that
            before the last token of a text is not.
        """
        ahead = chosen[:, None] + np.arange(1, most)
        inside = np.minimum(ahead, len(self) - 1)
        stored = (ahead < len(self)) & (self.token[inside] == self.token[chosen, None] + np.arange(1, most))
        return self._at(self.states[:, -1], inside), torch.from_numpy(stored)

    @staticmethod
    def _at(states: NDArray[np.int16], chosen: NDArray[np.int64]) -> Tensor:
        """Bfloat16 rows, gathered by torch: on all cores, and while other threads go on."""
        found = torch.from_numpy(states).index_select(0, torch.from_numpy(chosen.ravel()))
        return found.view(*chosen.shape, *found.shape[1:]).view(torch.bfloat16)

    def of_rows(self, chosen: NDArray[np.int64], shape: tuple[int, ...], every: bool = False) -> Tensor:
        """[B, N, d] float32, the last states of B rows at every token; NaN where none is stored, or no row is chosen.

        With `every`, [B, N, K, d] those of all layers.

        Not stored are those of the prompt, and that before the last token of a text.
        """
        layers = slice(None) if every else -1
        out = torch.full((*shape, *self.states[:0, layers].shape[1:]), float("nan"))
        first, end = (np.searchsorted(self.row, chosen, side) for side in ("left", "right"))
        for i, (row, a, b) in enumerate(zip(chosen, first, end, strict=True)):
            at = torch.from_numpy(self.token[a:b] - self.rows.offsets[row])
            out[i, at] = torch.from_numpy(np.array(self.states[a:b, layers])).view(torch.bfloat16).float()
        return out


def positions(rows: TokenRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[P] rows and [P] tokens at which a draft may begin: the two tokens after them are learnt."""
    at = np.arange(len(rows.ids) - 2)
    row = np.repeat(np.arange(len(rows)), rows.lengths)
    chosen = at[(row[at] == row[at + 2]) & rows.learnt[at + 1] & rows.learnt[at + 2]]
    return row[chosen], chosen


def stored_bytes(rows: TokenRows, model: MicroStepForCausalLM) -> int:
    """What the states of these rows take on disk."""
    return len(positions(rows)[0]) * len(model.config.context_layers) * int(model.config.hidden_size) * 2


@contextmanager
def base_as_it_was(model: MicroStepForCausalLM) -> Iterator[None]:
    """Without the adapter on the base, which may have been trained before."""
    if model.config.adapter is None:
        yield
        return
    model.base.disable_adapters()
    try:
        yield
    finally:
        model.base.enable_adapters()


def states_of(model: MicroStepForCausalLM, rows: TokenRows, path: Path, identity: dict[str, Any], tell: Tell) -> States:
    """Compute the states, or read those that are there.

    Args:
        model: whose base is run, unmerged.
        rows: the examples.
        path: folder of the states.
        identity: what decides them; states of something else are computed anew.
        tell: told about the progress.

    Raises:
        TooLarge: the disk has no room.
        ExportError: the folder cannot be written.
    """
    row, token = positions(rows)
    shape = (len(row), len(model.config.context_layers), int(model.config.hidden_size))
    said = {**identity, "shape": list(shape), "layers": list(model.config.context_layers)}
    if not len(row):  # nothing held out, for one: an empty file cannot be mapped
        return States(rows, np.zeros(shape, dtype=np.int16), row, token)
    if _mark(path) != said:
        _compute(model, rows, token, shape, path, tell)
        atomic_write(path / MARK, as_json(said))
    return States(rows, np.load(path / STATES, mmap_mode="c"), row, token)  # never written: torch asks for it


def _mark(path: Path) -> Any:
    try:
        return json.loads((path / MARK).read_text("utf-8"))
    except (OSError, ValueError):
        return None


def _compute(
    model: MicroStepForCausalLM,
    rows: TokenRows,
    token: NDArray[np.int64],
    shape: tuple[int, int, int],
    path: Path,
    tell: Tell,
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / MARK).unlink(missing_ok=True)
    size = 2 * int(np.prod(shape))
    if shutil.disk_usage(path).free < size + 2**28:
        raise TooLarge(
            f"the states take {size / 1e9:.2f} GB in {path}, more than the disk has free; free some, lower data.limit"
            " or raise draft.every"
        )
    out = np.lib.format.open_memmap(path / STATES, mode="w+", dtype=np.int16, shape=shape)
    place = np.full(len(rows.ids), -1)
    place[token] = np.arange(len(token))
    done = 0
    for chosen in cut(np.argsort(rows.lengths, kind="stable"), rows.lengths, BATCH_TOKENS[model.device.type]):
        some = batch(rows, chosen).to(model.device)
        position = (some.mask.long().cumsum(1) - 1).clamp(min=0)
        with torch.inference_mode():
            context = model.macro(model.get_input_embeddings()(some.ids), some.mask, position).context  # [B, N, K, d]
        check_states(model.base, context[some.mask.bool()], "states")
        bits = context.to(torch.bfloat16).cpu()[some.mask.cpu()].view(torch.int16).numpy()  # [tokens, K, d]
        where = np.concatenate([np.arange(rows.offsets[i], rows.offsets[i + 1]) for i in chosen])
        wanted = place[where] >= 0
        out[place[where[wanted]]] = bits[wanted]
        done += len(where)
        tell(f"states of the base: {done:,} of {len(rows.ids):,} tokens", done / len(rows.ids))
    out.flush()
