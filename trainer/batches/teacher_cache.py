"""The likeliest next tokens of the unchanged base, as they were kept beside the scores of the prepared data."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data.states.files import Parts
from data.training_rows import TokenRows
from trainer.batches.hidden_state_cache import stored_in


@dataclass(frozen=True)
class TopTokens:
    """The base's likeliest tokens after P positions; of a row, the positions of `hidden_state_cache.positions`."""

    rows: TokenRows
    ids: Parts  # [P', k] int32, of all positions that are kept
    probability: Parts  # [P', k] float16
    place: NDArray[np.int64]  # [P] where a position's tokens are
    row: NDArray[np.int64]  # [P]
    token: NDArray[np.int64]  # [P] index in `rows.ids`

    def of_rows(self, chosen: NDArray[np.int64], shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return [B, N, k] ids and float16 probabilities of B rows; NaN where none is stored."""
        nothing = self.place[:0]
        ids = torch.zeros(*shape, self.ids.take(nothing).shape[1], dtype=torch.int32)
        probability = torch.full(ids.shape, float("nan"), dtype=torch.float16)
        for i, (at, stored) in enumerate(stored_in(self.rows, self.row, self.token, chosen)):
            ids[i, torch.from_numpy(at)] = self.ids.take(self.place[stored])
            probability[i, torch.from_numpy(at)] = self.probability.take(self.place[stored])
        return ids, probability
