"""A model whose scores another engine computes, such as vLLM, in the place of a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.hub.spec import LoadedModel
from model.scoring.scores import TokenScores


class ScoringEngine(Protocol):
    """Computes the scores of texts."""

    @property
    def name(self) -> str:
        """The engine and its version, which stores of scores are kept apart by."""

    @property
    def batch_tokens(self) -> int:
        """How many tokens it reads at once."""

    def start(self, longest: int) -> None:
        """Load the model, for texts of which at most this many tokens are read.

        Raises:
            MicroStepError: the engine cannot score this model.
        """

    def score(
        self, rows: Sequence[NDArray[np.int64]], prefix: Sequence[int], done: Callable[[int], None]
    ) -> list[TokenScores]:
        """Score texts, each on its own, as `token_scores.score` does; without top-k.

        Args:
            rows: token ids of each text, [N_i], without the tokenizer's prefix.
            prefix: ids before each text.
            done: called with the number of tokens that were scored since the last call.

        Raises:
            NumericalError: the logits of a text's tokens are not finite; `row` is its index.
        """


@dataclass(frozen=True, eq=False, repr=False)
class EngineModel(LoadedModel):
    """A model in another engine: its facts and tokenizer are here, its weights are not (torch's meta device)."""

    engine: ScoringEngine = field(kw_only=True)
