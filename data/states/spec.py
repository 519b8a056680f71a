"""What is kept of a base, and where. This module is light, for options that do not need torch yet.

STATES/8-15-22-30/part-00000.safetensors   states [P, K, d] after these layers, bfloat16, of one shard of the scores
STATES/top-64/part-00000.safetensors       the 64 likeliest next tokens: ids [P, k], probability [P, k] float16
STATES/*/part-00000.json                   its mark, written last: whose states they are, of which scores
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from model.errors import MicroStepError


@dataclass(frozen=True)
class StatesSpec:
    """What to keep, at the positions of `data.learned.kept_positions`."""

    folder: Path  # with a folder for each kind
    layers: tuple[int, ...] | None = None
    """States after these layers, the last of which is the base's last; (): evenly spaced ones; None: no states."""
    top: int | None = None  # number of likeliest next tokens; None: none

    def __post_init__(self) -> None:
        if self.layers is None and self.top is None:
            raise MicroStepError("nothing is to be kept of the base: give layers, or a number of likeliest tokens")
        if self.top is not None and self.top < 1:
            raise MicroStepError(f"at least one likeliest token must be kept, got {self.top}")

    def state_folder(self, layers: tuple[int, ...]) -> Path:
        return self.folder / "-".join(map(str, layers))

    @property
    def top_folder(self) -> Path:
        return self.folder / f"top-{self.top}"
