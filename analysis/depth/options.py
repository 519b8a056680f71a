"""Options of the command `depth`: how its figures look, and the tuned lenses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from analysis.depth.scores import LAYER_SCORES
from analysis.score_registry import Score
from analysis.view import EVERY_ROLE, OF_FIGURES, UNIT, Lens, PinnedOption, ThemeOption, UnitOption
from model.arguments import check_choice
from model.text.document import ROLES, TEMPLATE

NO_SEGMENTS = "none"


@dataclass(frozen=True)
class TunedLensOptions:
    """Trained lenses, in place of the logit lens."""

    tuned_lens: Annotated[
        str | None,
        typer.Option(
            help="A tuned lens that was trained for the model, or for A: a folder with params.pt or"
            " params.safetensors, or such a file. Default: the logit lens."
        ),
    ] = None
    b_tuned_lens: Annotated[str | None, typer.Option(help="The same for B.")] = None


@dataclass(frozen=True)
class DepthView:
    """How depth is shown."""

    score: Annotated[str, typer.Option(help=f"Score of the figures: {', '.join(LAYER_SCORES)}."), OF_FIGURES] = (
        "entropy"
    )
    lens: Annotated[
        Lens, typer.Option(help="What the heat map shows: model A, B, both, or what changed from A to B."), OF_FIGURES
    ] = "both"
    unit: UnitOption = UNIT
    theme: ThemeOption = "light"
    pinned: PinnedOption = None  # a character of the document's text
    role: Annotated[str, typer.Option(help="Count only tokens of this role: text, user, assistant, ...; or all.")] = (
        EVERY_ROLE
    )
    start: Annotated[
        int | None,
        typer.Option(min=0, help="First token of the heat map; by default it is around the pinned one."),
        OF_FIGURES,
    ] = None
    segments: Annotated[
        str,
        typer.Option(help="Strategy whose segments the strip marks, such as entropy:threshold=1.2; or none."),
        OF_FIGURES,
    ] = NO_SEGMENTS

    def __post_init__(self) -> None:
        check_choice("score", self.score, LAYER_SCORES)
        check_choice("role", self.role, (EVERY_ROLE, *ROLES, TEMPLATE))

    @property
    def shown(self) -> Score:
        """The score that is drawn."""
        return LAYER_SCORES[self.score]

    @property
    def axis(self) -> str:
        """The label of an axis that shows the score."""
        return f"{self.shown.title}, {self.shown.unit(self.unit)}"
