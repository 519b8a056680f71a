"""Turns a map of positions into one of segments: summed over a segment's keys, averaged over its queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.attention.maps import MapRows


@dataclass(frozen=True, eq=False)
class SegmentRows:
    """A map of P positions as a map of S segments. Its rows still sum to 1."""

    of: MapRows
    starts: NDArray[np.bool_]  # [P] whether a position starts a segment

    def __post_init__(self) -> None:
        if self.starts.shape != (self.of.size,) or not self.starts[0]:
            raise ValueError(f"starts must be [{self.of.size}] and begin with a segment, got {self.starts.shape}")

    @property
    def size(self) -> int:
        """S, the number of segments."""
        return int(self.starts.sum())

    def rows(self, begin: int, end: int) -> NDArray[np.float32]:
        """[end - begin, end] weights of the segments begin .. end - 1."""
        edges = np.append(np.flatnonzero(self.starts), self.of.size)
        first, last = int(edges[begin]), int(edges[end])
        summed = np.add.reduceat(self.of.rows(first, last), edges[:end], axis=1)
        counts = np.diff(edges[begin : end + 1])[:, None]
        mean = np.add.reduceat(summed, edges[begin:end] - first, axis=0) / counts
        return mean.astype(np.float32)
