"""How results are shown: score, unit, theme, pinned character. Changing a view runs no model.

A view's fields are the options of the command that draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from analysis.score_registry import SCORES, Score, Unit
from model.errors import MicroStepError
from model.text.document import ROLES, TEMPLATE

Theme = Literal["light", "dark"]
EVERY_ROLE = "all"
UNIT: Unit = "nats"  # of every command unless it is told another; strategies and stores are in nats, too
UnitOption = Annotated[Unit, typer.Option(help="Unit of entropy and surprisal.")]
ThemeOption = Annotated[Theme, typer.Option(help="Colours of the figure.")]
PinnedOption = Annotated[int | None, typer.Option(min=0, help="Character of the text to mark in the figure.")]


@dataclass(frozen=True)
class View:
    """How a comparison is shown."""

    score: Annotated[str, typer.Option(help="Score of the figure: entropy, confidence, margin or surprisal.")] = (
        "entropy"
    )
    unit: UnitOption = UNIT
    theme: ThemeOption = "light"
    pinned: PinnedOption = None  # a character of the document's text
    role: Annotated[str, typer.Option(help="Draw only tokens of this role: text, user, assistant, ...; or all.")] = (
        EVERY_ROLE
    )

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise MicroStepError(f"unknown score {self.score!r}; use one of {', '.join(SCORES)}")
        if self.role not in (EVERY_ROLE, TEMPLATE, *ROLES):
            raise MicroStepError(f"unknown role {self.role!r}; use one of {', '.join((EVERY_ROLE, *ROLES))}")

    @property
    def shown(self) -> Score:
        """The score that is drawn."""
        return SCORES[self.score]

    @property
    def axis(self) -> str:
        """The label of an axis that shows the score."""
        return f"{self.shown.title}, {self.shown.unit(self.unit)}"
