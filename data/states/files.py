"""The files of kept states: parts that are complete or absent, each with a mark. See spec.py.

This module does not know how states are computed.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from data.states.spec import StatesSpec
from model.atomic_files import as_json, atomic_write, read_json
from model.errors import TextError
from model.hub.cache import remembered_sha256

STATES, IDS, PROBABILITY = "states", "ids", "probability"
KEPT = "the complete parts are kept: run the same command again to resume"


@dataclass(frozen=True)
class PartSource:
    """Where a part comes from."""

    scores: str  # hash of the shard of scores whose rows were read
    base: str | None  # revision of the base
    dtype: str  # precision of the base


@dataclass(frozen=True)
class PartMark(PartSource):
    """What is known of a complete part."""

    positions: int
    sha256: str


def part_file(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05d}.safetensors"


def write_part(folder: Path, number: int, tensors: dict[str, Tensor]) -> str:
    """Write the tensors of one shard, and return their hash. The part counts once `write_mark` has marked it."""
    content = save(tensors)
    file = part_file(folder, number)
    file.with_suffix(".json").unlink(missing_ok=True)
    atomic_write(file, content, KEPT)
    return hashlib.sha256(content).hexdigest()


def write_mark(folder: Path, number: int, source: PartSource, positions: int, sha256: str) -> None:
    mark = PartMark(**dataclasses.asdict(source), positions=positions, sha256=sha256)
    atomic_write(part_file(folder, number).with_suffix(".json"), as_json(dataclasses.asdict(mark)), KEPT)


def read_mark(folder: Path, number: int) -> PartMark | None:
    """Return the mark of a complete part whose content is the marked one; else None."""
    file = part_file(folder, number)
    values = read_json(file.with_suffix(".json"))
    try:
        mark = PartMark(**values)
        return mark if remembered_sha256(file) == mark.sha256 else None
    except (OSError, TypeError):
        return None


@dataclass(frozen=True)
class Parts:
    """One tensor of P positions in parts, which the page cache holds: it may be larger than the memory."""

    tensors: tuple[Tensor, ...]  # [P_i, ...] each

    @property
    def ends(self) -> NDArray[np.int64]:
        return np.cumsum([len(tensor) for tensor in self.tensors], dtype=np.int64)

    def __len__(self) -> int:
        return sum(map(len, self.tensors))

    def take(self, chosen: NDArray[np.int64], layer: int | None = None) -> Tensor:
        """Return [Q, ...] the entries of Q positions; with `layer`, [Q, d] of states [P, K, d].

        Rows are gathered by torch: on all cores, while other threads continue.
        """
        first = self.tensors[0] if layer is None else self.tensors[0][:, layer]
        ends = self.ends
        part = np.searchsorted(ends, chosen, side="right")
        out = torch.empty(len(chosen), *first.shape[1:], dtype=first.dtype)
        for number in np.unique(part):
            tensor = self.tensors[number] if layer is None else self.tensors[number][:, layer]
            mine = np.flatnonzero(part == number)
            inside = torch.from_numpy(chosen[mine] - (ends[number] - len(tensor)))
            out[torch.from_numpy(mine)] = tensor.index_select(0, inside)
        return out


def open_parts(folder: Path, names: tuple[str, ...], count: int) -> tuple[Parts, ...]:
    """Open tensors of some names in all parts of a folder.

    Raises:
        TextError: a part is gone or damaged.
    """
    found: list[tuple[Tensor, ...]] = []
    for number in range(count):
        file = part_file(folder, number)
        try:
            with safe_open(file, "pt") as opened:
                found.append(tuple(opened.get_tensor(name) for name in names))
        except (OSError, SafetensorError) as error:
            raise TextError(f"{file} is damaged ({error}); remove {folder} and run the same command again") from None
    return tuple(Parts(tensors) for tensors in zip(*found, strict=True))


def bytes_per_position(spec: StatesSpec, layers: tuple[int, ...], config: Any) -> int:
    """Return the size on disk of one position's entries, for a base of that configuration."""
    states = 0 if spec.layers is None else 2 * len(layers) * int(config.hidden_size)
    return states + (0 if spec.top is None else 6 * spec.top)
