"""The scores of one model on one text, and the scores of two models, aligned."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis.uncertainty.alignment import Cells
from model.hub.loading import LoadedModel
from model.hub.model_info import ModelInfo
from model.scoring.token_scores import Divergences, TokenScores
from model.short_repr import ShortRepr
from model.text.document import TEMPLATE, Document
from model.text.encoding import EncodedText


@dataclass(frozen=True, repr=False)
class ScoredText(ShortRepr):
    """One model's scores of one document."""

    facts: ModelInfo
    encoded: EncodedText  # N tokens
    scores: TokenScores  # of the same N
    strings: dict[int, str]  # what each of the top-k ids stands for
    notes: tuple[str, ...] = field(default=())  # what a reader must know: truncation, missing template, ...
    generated: int = 0  # how many of the last tokens the model wrote itself
    ended: bool = False  # the last token ends the text: a choice that the model made, and no bytes of text

    def __post_init__(self) -> None:
        if len(self.encoded) != len(self.scores):
            raise ValueError(f"{len(self.encoded)} tokens but {len(self.scores)} scores")

    @property
    def content(self) -> NDArray[np.bool_]:
        """[N] scored tokens that are text, not template."""
        found: NDArray[np.bool_] = (self.encoded.role != TEMPLATE) & ~self.scores.missing
        return found

    @property
    def own(self) -> NDArray[np.bool_]:
        """[N] scored tokens that the model wrote itself."""
        return np.arange(len(self.encoded)) >= len(self.encoded) - self.generated


@dataclass(frozen=True, repr=False)
class Comparison(ShortRepr):
    """Two models' scores of one document, aligned. In a continuation each wrote its own text: no cells."""

    document: Document
    a: ScoredText
    b: ScoredText
    cells: Cells | None  # None for continuations
    divergences: Divergences | None  # [N], only where both read the same tokens of one vocabulary

    @property
    def same_tokens(self) -> bool:
        """Both models read the same ids, one by one."""
        return np.array_equal(self.a.encoded.ids, self.b.encoded.ids) and same_tokenizer(self.a, self.b)


def same_tokenizer(a: ScoredText | LoadedModel, b: ScoredText | LoadedModel) -> bool:
    """Whether ids mean the same for both."""
    return a.facts.tokenizer_hash == b.facts.tokenizer_hash
