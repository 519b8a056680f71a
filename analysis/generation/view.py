"""How a generation is looked at. The fields of the view are options of the command `generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from analysis.view import OF_FIGURES, UNIT, PinnedOption, ThemeOption, UnitOption

Over = Literal["time", "passes"]


@dataclass(frozen=True)
class GenerationView:
    """How a generation is looked at. Changing it runs no model."""

    unit: UnitOption = UNIT
    theme: ThemeOption = "light"
    pinned: PinnedOption = None  # a character of the answer; of two that differ, laid end to end
    over: Annotated[Over, typer.Option(help="Horizontal axis of the timeline."), OF_FIGURES] = "time"
