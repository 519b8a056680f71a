"""How results are shown: score, unit, theme, pinned character. Changing a view runs no model.

A view's fields are the options of the command that draws it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from analysis.score_registry import DIFFERENCE, MEASURES, SCORES, Score, Unit
from model.arguments import check_choice
from model.command_options import OnlyWith
from model.text.document import ROLES, TEMPLATE

Theme = Literal["light", "dark"]
Lens = Literal["a", "b", "both", "change"]
EVERY_ROLE = "all"
UNIT: Unit = "nats"  # of every command unless it is told another; strategies and stores are in nats, too
UnitOption = Annotated[Unit, typer.Option(help="Unit of entropy and surprisal.")]
OF_FIGURES = OnlyWith("figure")  # marks an option that no table reads
ThemeOption = Annotated[Theme, typer.Option(help="Colours of the figure."), OF_FIGURES]
PinnedOption = Annotated[
    int | None, typer.Option(min=0, help="Character of the text to mark in the figure."), OF_FIGURES
]


@dataclass(frozen=True)
class ScoreView:
    """How the scores of one model are shown."""

    score: Annotated[str, typer.Option(help=f"Score of the figure: {', '.join(SCORES)}."), OF_FIGURES] = "entropy"
    unit: UnitOption = UNIT
    theme: ThemeOption = "light"
    pinned: PinnedOption = None  # a character of the document's text
    role: Annotated[
        str, typer.Option(help="Draw only tokens of this role: text, user, assistant, ...; or all."), OF_FIGURES
    ] = EVERY_ROLE

    def __post_init__(self) -> None:
        check_choice("score", self.score, SCORES)
        check_choice("role", self.role, (EVERY_ROLE, *ROLES, TEMPLATE))

    @property
    def shown(self) -> Score:
        """The score that is drawn."""
        return SCORES[self.score]

    @property
    def axis(self) -> str:
        """The label of an axis that shows the score."""
        return f"{self.shown.title}, {self.shown.unit(self.unit)}"


@dataclass(frozen=True)
class View(ScoreView):
    """How a comparison is shown."""

    score: Annotated[str, typer.Option(help=f"Score of the summary and figures: {', '.join(SCORES)}.")] = "entropy"
    lens: Annotated[
        Lens, typer.Option(help="What the strip shows: model A, B, both, or what changed from A to B."), OF_FIGURES
    ] = "both"
    measure: Annotated[
        str,
        typer.Option(help=f"How `--lens change` measures change: {DIFFERENCE} (of the score), {', '.join(MEASURES)}."),
    ] = DIFFERENCE
    with_template: Annotated[
        bool, typer.Option(help="Draw the tokens of the chat template in the strip, too."), OF_FIGURES
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("measure", self.measure, (DIFFERENCE, *MEASURES))

    @property
    def change(self) -> Score:
        """The measure of change that is drawn; its name is a column of cell_table."""
        return self.shown.difference() if self.measure == DIFFERENCE else MEASURES[self.measure]
