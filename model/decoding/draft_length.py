"""How many tokens to draft next: as many as make decoding quickest, by the times of passes and what was kept so far.

Each row i has two running rates: d_i, how often its rule keeps a word that the micro decoder proposes, and k_i, how
often the next place of a draft is both drafted and kept by the base. With drafts of at most n tokens, a pass of the
base over R rows writes

    sum_i (1 + k_i + .. + k_i^n)

tokens on average. All rows are padded to the longest draft, whose length is at least j with probability
1 - prod_i (1 - d_i^j). These give the mean seconds of the pass and of the micro decoder's steps, and n is the number
with the most tokens a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.decoding.output import RowOutput

DRAFTED, KEPT = 0.9, 0.5  # d and k before anything is known: those of micro-step-smollm2-135m-draft
POOLED, OWN = 8.0, 4.0  # proposals that these count as, for all rows; and that all rows count as, for one
MARGIN = 1.05  # drafting must be quicker than the base alone by this factor, since times and rates are not exact


class DraftCosts(Protocol):
    """The times of a pass. Only their ratios matter."""

    def seconds(self, rows: int, most: int) -> tuple[Sequence[float], float]:
        """Seconds of a pass of the base over 1, 2, .. 1 + `most` tokens of each row; and of a micro decoder's step."""

    @property
    def needs_plain_pass(self) -> bool:
        """True if the next pass should have no draft, so that its time is known."""

    def observe(self, rows: int, drafted: int, steps: int, seconds: float) -> None:
        """Take note of how long a pass took.

        Args:
            rows: of the batch.
            drafted: tokens of the longest draft.
            steps: of the micro decoder.
            seconds: that drafting and checking took.
        """


@dataclass(frozen=True)
class PassTimes:
    """Known times at some numbers of rows; between these they are interpolated, and beyond them the nearest hold."""

    base: Mapping[int, Sequence[float]]  # rows: seconds of a pass over 1, 2, .. tokens of each
    micro: Mapping[int, float]  # rows: seconds of a step of the micro decoder

    def seconds(self, rows: int, most: int) -> tuple[Sequence[float], float]:
        """See `DraftCosts`."""
        known = sorted(self.base)
        base = [float(np.interp(rows, known, [self.base[n][j] for n in known])) for j in range(most + 1)]
        return base, float(np.interp(rows, known, [self.micro[n] for n in known]))

    @property
    def needs_plain_pass(self) -> bool:
        """False: these times are known."""
        return False

    def observe(self, rows: int, drafted: int, steps: int, seconds: float) -> None:
        """These times stay what they are."""


def tokens_to_draft(rows: Sequence[RowOutput], costs: DraftCosts, most: int, others: int = 0) -> int:
    """Return how many tokens to draft at most for the next pass over these rows, from 0 to `most`.

    `others` is the number of further rows of the batch, for which nothing is drafted.
    """
    if not rows or not most or costs.needs_plain_pass:
        return 0
    every = len(rows) + others
    base, micro = costs.seconds(every, most)
    drafted, kept = _rates(rows)
    powers = np.arange(1, most + 1)
    written = every + np.cumsum((kept[:, None] ** powers).sum(0))  # with 1, 2, .. most tokens
    reached = 1 - np.prod(1 - drafted[:, None] ** powers, 0)  # some row drafts at least 1, 2, .. tokens
    best, fastest = 0, MARGIN * every / base[0]
    for n in range(1, most + 1):
        at_least = np.concatenate([[1.0], reached[:n], [0.0]])
        seconds = float((at_least[:-1] - at_least[1:]) @ np.array(base[: n + 1])) + micro * float(at_least[:n].sum())
        if written[n - 1] / seconds > fastest:
            best, fastest = n, written[n - 1] / seconds
    return best


def _rates(rows: Sequence[RowOutput]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each row's d and k: its own counts, with those of all rows as a prior."""
    counts = np.array(
        [(row.drafted, row.micro_steps, row.accepted, row.accepted + row.ended_early) for row in rows], dtype=np.float64
    )
    drafted, kept = (
        (own + OWN * (own.sum() + POOLED * prior) / (of.sum() + POOLED)) / (of + OWN)
        for own, of, prior in ((counts[:, 0], counts[:, 1], DRAFTED), (counts[:, 2], counts[:, 3], KEPT))
    )
    return drafted, kept
