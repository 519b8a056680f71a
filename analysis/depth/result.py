"""What every layer predicts for a text, under one model or two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.depth.scores import LAYER_SCORES
from analysis.score_registry import Unit
from analysis.uncertainty.alignment import Cells, common_cells
from analysis.uncertainty.result import ScoredText, same_tokenizer
from analysis.view import Lens
from model.errors import MicroStepError
from model.scoring.scores import LayerScores
from model.short_repr import ShortRepr
from model.text.document import Document

LOGIT_LENS = "logit lens"


def raw(layers: LayerScores, score: str) -> NDArray[np.float64]:
    """[L + 1, N] one of LAYER_SCORES: nats, probabilities, or log10 of a rank; NaN where missing."""
    values: NDArray[np.float64] = getattr(layers, score).astype(np.float64)
    return np.log10(np.where(layers.missing, np.nan, values)) if score in ("rank", "final_rank") else values


@dataclass(frozen=True, repr=False)
class LayeredText(ShortRepr):
    """One model's predictions after each of its L layers, for one document of N tokens."""

    scored: ScoredText  # the final prediction: the ordinary scores
    layers: LayerScores  # [L + 1, N]: row 0 is of the embeddings, row L is the final prediction
    strings: dict[int, str]  # the text of each id in `layers.top_id`
    lens: str = LOGIT_LENS  # or "tuned lens NAME"

    def __post_init__(self) -> None:
        if self.layers.entropy.shape[1] != len(self.scored.scores):
            raise ValueError(f"{len(self.scored.scores)} tokens but {self.layers.entropy.shape[1]} columns of layers")

    @property
    def count(self) -> int:
        """L, the number of layers."""
        return self.layers.count

    def raw(self, score: str) -> NDArray[np.float64]:
        """[L + 1, N] one of LAYER_SCORES: nats, probabilities, or log10 of a rank; NaN where missing."""
        return raw(self.layers, score)

    def values(self, score: str, unit: Unit) -> NDArray[np.float32]:
        """[L + 1, N] one of LAYER_SCORES as it is shown."""
        return LAYER_SCORES[score].values(self.raw(score), unit)

    @property
    def decided(self) -> NDArray[np.float64]:
        """[N] the layer at which each token is decided, 0 to L; NaN where missing."""
        decided = self.layers.decided.astype(np.float64)
        return np.where(decided < 0, np.nan, decided)

    def top_word(self, layer: int, token: int) -> str:
        """The likeliest word after a layer; "" where missing."""
        return self.strings.get(int(self.layers.top_id[layer, token]), "")


@dataclass(frozen=True, repr=False)
class Depth(ShortRepr):
    """One document under one model, or under two whose tokens are aligned."""

    document: Document
    sides: tuple[LayeredText, ...]  # A; or A and B
    cells: Cells | None = None  # C pieces of text that both models scored; None for one model

    @classmethod
    def of(cls, document: Document, sides: tuple[LayeredText, ...]) -> Depth:
        """Align what two models scored, or take one as it is."""
        if len(sides) == 1:
            return cls(document, sides)
        aligned = [(side.scored.encoded, ~side.layers.missing) for side in sides]
        return cls(document, sides, common_cells(document.text, *aligned[0], *aligned[1]))

    @property
    def keys(self) -> tuple[str, ...]:
        """The letters of the models."""
        return ("A", "B")[: len(self.sides)]

    def seen(self, lens: Lens) -> list[tuple[str, LayeredText]]:
        """The models that a lens shows, under their letters: none with "change".

        Raises:
            MicroStepError: it shows B alone, and there is only one model.
        """
        if lens == "b" and len(self.sides) < 2:
            raise MicroStepError("there is no model B: give A and B")
        return [each for each in zip(self.keys, self.sides, strict=True) if lens in (each[0].lower(), "both")]

    @property
    def same_tokenizer(self) -> bool:
        """Whether a token of one model is a token of the other."""
        return same_tokenizer(self.sides[0].scored, self.sides[-1].scored)

    @property
    def same_layers(self) -> bool:
        """Whether a layer of one model can be set beside the same layer of the other."""
        return self.sides[0].count == self.sides[-1].count

    def check_cells(self) -> Cells:
        """The pieces of text that both models scored; raises MicroStepError if there is only one model."""
        if self.cells is None:
            raise MicroStepError("B − A needs two models: give A and B")
        return self.cells

    def check_change(self) -> None:
        """Raise MicroStepError if B minus A is not defined."""
        self.check_cells()
        if not self.same_layers:
            raise MicroStepError(
                f"A and B have {self.sides[0].count} and {self.sides[1].count} layers, so B − A is not defined layer by"
                " layer: look at A and B beside each other, by relative depth"
            )

    def change(self, score: str, unit: Unit) -> NDArray[np.float64]:
        """[L + 1, C] B minus A of one of LAYER_SCORES in each cell.

        Entropy, surprisal and divergences are summed over the tokens of a cell; probabilities and ranks are averaged.

        Raises:
            MicroStepError: see `check_change`.
        """
        self.check_change()
        assert self.cells is not None
        known = LAYER_SCORES[score]
        a, b = (
            np.stack([total(row) for row in side.values(score, unit)])
            for side, total in zip(self.sides, (self.cells.sum_a, self.cells.sum_b), strict=True)
        )
        if not known.information:
            a, b = a / self.cells.tokens_a, b / self.cells.tokens_b
        return b - a

    def decided_in_cells(self) -> tuple[NDArray[np.float64], ...]:
        """[C] of each model, the layer at which the last token of a cell is decided."""
        assert self.cells is not None
        found = []
        for side, cell in zip(self.sides, (self.cells.token_cell_a, self.cells.token_cell_b), strict=True):
            latest = np.full(len(self.cells), np.nan)
            np.fmax.at(latest, cell[cell >= 0], side.decided[cell >= 0])
            found.append(latest)
        return tuple(found)
