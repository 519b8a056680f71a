"""The likeliest next tokens of the unchanged base, computed once for all positions that a teacher is stored for.

TEACHER/ids.npy          [P, k] int32
TEACHER/probability.npy  [P, k] float16
TEACHER/teacher.json     written last: the inputs that decide them
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.training_rows import TokenRows
from model.atomic_files import as_json, atomic_write, make_folder, need_disk, read_json
from model.causal_lm.chunked_cross_entropy import CHUNK_BYTES
from model.causal_lm.forward import logits_of, vocabulary
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell
from trainer.batches.hidden_state_cache import contexts, positions, stored_in

MARK, IDS, PROBABILITY = "teacher.json", "ids.npy", "probability.npy"


@dataclass(frozen=True)
class TopTokens:
    """The base's likeliest tokens after P positions; of a row, the positions of `hidden_state_cache.positions`."""

    rows: TokenRows
    ids: NDArray[np.int32]  # [P, k]
    probability: NDArray[np.float16]  # [P, k]
    row: NDArray[np.int64]  # [P]
    token: NDArray[np.int64]  # [P] index in `rows.ids`

    def of_rows(self, chosen: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return [B, N, k] ids and float16 probabilities of B rows; NaN where none is stored."""
        ids = np.zeros((*shape, self.ids.shape[1]), dtype=np.int32)
        probability = np.full(ids.shape, np.nan, dtype=np.float16)
        for i, (at, stored) in enumerate(stored_in(self.rows, self.row, self.token, chosen)):
            ids[i, at], probability[i, at] = self.ids[stored], self.probability[stored]
        return torch.from_numpy(ids), torch.from_numpy(probability)


def load_or_compute_top_tokens(
    model: MicroStepForCausalLM, rows: TokenRows, k: int, path: Path, identity: dict[str, Any], tell: Tell
) -> TopTokens:
    """Compute the k likeliest tokens (at most the vocabulary), or read stored ones.

    Raises:
        TooLarge: the disk has no room.
        ExportError: the folder cannot be written.
    """
    row, token = positions(rows)
    shape = (len(row), min(k, vocabulary(model.base)))
    if not len(row):
        return TopTokens(rows, np.zeros(shape, np.int32), np.zeros(shape, np.float16), row, token)
    identity_used = {**identity, "shape": list(shape)}
    if read_json(path / MARK) != identity_used:
        _compute(model, rows, token, shape, path, tell)
        atomic_write(path / MARK, as_json(identity_used))
    ids, probability = (np.load(path / name, mmap_mode="r") for name in (IDS, PROBABILITY))
    return TopTokens(rows, ids, probability, row, token)


@torch.inference_mode()
def _compute(
    model: MicroStepForCausalLM,
    rows: TokenRows,
    token: NDArray[np.int64],
    shape: tuple[int, int],
    path: Path,
    tell: Tell,
) -> None:
    make_folder(path)
    (path / MARK).unlink(missing_ok=True)
    need_disk(path, 6 * int(np.prod(shape)) + 2**28, "the teacher's files", "free some, or lower teacher_top")
    ids = np.lib.format.open_memmap(path / IDS, mode="w+", dtype=np.int32, shape=shape)
    probability = np.lib.format.open_memmap(path / PROBABILITY, mode="w+", dtype=np.float16, shape=shape)
    size = max(1, CHUNK_BYTES // (4 * vocabulary(model.base)))
    for where, context in contexts(model, rows, token, tell):
        for a in range(0, len(where), size):
            top = logits_of(model.base, context[a : a + size, -1]).softmax(-1).topk(shape[1])
            ids[where[a : a + size]] = top.indices.cpu().numpy()
            probability[where[a : a + size]] = top.values.cpu().numpy()
    ids.flush()
    probability.flush()
