"""The scores of one model on one text, and the scores of two models, aligned."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis.uncertainty.alignment import Cells
from model.hub.loading import LoadedModel
from model.hub.model_info import ModelInfo
from model.scoring.scores import Divergences, TokenScores
from model.short_repr import ShortRepr
from model.text.document import TEMPLATE, Document
from model.text.encoding import EncodedText


@dataclass(frozen=True, repr=False)
class ScoredText(ShortRepr):
    """One model's scores of one document."""

    facts: ModelInfo
    encoded: EncodedText  # N tokens
    scores: TokenScores  # of the same N
    strings: dict[int, str]  # the text of each top-k id
    notes: tuple[str, ...] = field(default=())  # caveats: truncation, a missing template, ...
    generated: int = 0  # the number of tokens, at the end, that the model wrote itself
    ended: bool = False  # the last token is the end token: it has scores, but no bytes of text

    def __post_init__(self) -> None:
        if len(self.encoded) != len(self.scores):
            raise ValueError(f"{len(self.encoded)} tokens but {len(self.scores)} scores")

    @property
    def content(self) -> NDArray[np.bool_]:
        """[N] scored tokens that are text, not template."""
        content: NDArray[np.bool_] = (self.encoded.role != TEMPLATE) & ~self.scores.missing
        return content

    @property
    def own(self) -> NDArray[np.bool_]:
        """[N] scored tokens that the model wrote itself."""
        return np.arange(len(self.encoded)) >= len(self.encoded) - self.generated


@dataclass(frozen=True, repr=False)
class Comparison(ShortRepr):
    """Two models' scores of one document, aligned. Continuations are two texts, so they have no cells."""

    document: Document
    a: ScoredText
    b: ScoredText
    cells: Cells | None  # None for continuations
    divergences: Divergences | None  # [N] if both models read the same tokens of one vocabulary, else None

    @property
    def same_tokens(self) -> bool:
        """Whether both models read the same token ids."""
        return np.array_equal(self.a.encoded.ids, self.b.encoded.ids) and same_tokenizer(self.a, self.b)


def same_tokenizer(a: ScoredText | LoadedModel, b: ScoredText | LoadedModel) -> bool:
    """Whether both models have the same tokenizer."""
    return a.facts.tokenizer_hash == b.facts.tokenizer_hash
