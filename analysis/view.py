"""How results are shown: score, unit, theme, pinned character. Changing a view runs no model.

A view's fields are the options of the command that draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from analysis.score_registry import DIFFERENCE, MEASURES, SCORES, Score, Unit
from model.errors import MicroStepError
from model.text.document import ROLES, TEMPLATE

Theme = Literal["light", "dark"]
Lens = Literal["a", "b", "both", "change"]
EVERY_ROLE = "all"
UNIT: Unit = "nats"  # of every command unless it is told another; strategies and stores are in nats, too
UnitOption = Annotated[Unit, typer.Option(help="Unit of entropy and surprisal.")]
ThemeOption = Annotated[Theme, typer.Option(help="Colours of the figure.")]
PinnedOption = Annotated[int | None, typer.Option(min=0, help="Character of the text to mark in the figure.")]


@dataclass(frozen=True)
class View:
    """How a comparison is shown."""

    score: Annotated[str, typer.Option(help=f"Score of the figure: {', '.join(SCORES)}.")] = "entropy"
    unit: UnitOption = UNIT
    theme: ThemeOption = "light"
    pinned: PinnedOption = None  # a character of the document's text
    role: Annotated[str, typer.Option(help="Draw only tokens of this role: text, user, assistant, ...; or all.")] = (
        EVERY_ROLE
    )
    lens: Annotated[Lens, typer.Option(help="What the strip shows: model A, B, both, or what changed from A to B.")] = (
        "both"
    )
    measure: Annotated[
        str,
        typer.Option(help=f"How `--lens change` measures change: {DIFFERENCE} (of the score), {', '.join(MEASURES)}."),
    ] = DIFFERENCE
    with_template: Annotated[bool, typer.Option(help="Draw the tokens of the chat template in the strip, too.")] = False

    def __post_init__(self) -> None:
        if self.score not in SCORES:
            raise MicroStepError(f"unknown score {self.score!r}; use one of {', '.join(SCORES)}")
        if self.measure not in (DIFFERENCE, *MEASURES):
            raise MicroStepError(f"unknown measure {self.measure!r}; use one of {', '.join((DIFFERENCE, *MEASURES))}")
        if self.role not in (EVERY_ROLE, TEMPLATE, *ROLES):
            raise MicroStepError(f"unknown role {self.role!r}; use one of {', '.join((EVERY_ROLE, *ROLES))}")

    @property
    def shown(self) -> Score:
        """The score that is drawn."""
        return SCORES[self.score]

    @property
    def change(self) -> Score:
        """The measure of change that is drawn; its name is a column of cell_table."""
        return self.shown.difference() if self.measure == DIFFERENCE else MEASURES[self.measure]

    @property
    def axis(self) -> str:
        """The label of an axis that shows the score."""
        return f"{self.shown.title}, {self.shown.unit(self.unit)}"
