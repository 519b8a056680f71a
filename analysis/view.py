"""How results are shown: score, unit, theme, pinned character. Changing a view runs no model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analysis.score_registry import SCORES, Score, Unit
from model.errors import MicroStepError

Theme = Literal["light", "dark"]


@dataclass(frozen=True)
class View:
    """How a comparison is shown."""

    score: str = "entropy"
    unit: Unit = "bits"
    theme: Theme = "light"
    pinned: int | None = None  # a character of the document's text
    role: str = "all"

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise MicroStepError(f"unknown score {self.score!r}; use one of {', '.join(SCORES)}")

    @property
    def shown(self) -> Score:
        """The score that is drawn."""
        return SCORES[self.score]

    @property
    def axis(self) -> str:
        """The label of an axis that shows the score."""
        return f"{self.shown.title}, {self.shown.unit(self.unit)}"
