"""Which training runs are read, and how they are looked at: options of the command `runs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from analysis.runs.curves import AXES, Axis, check_smoothing, curve
from analysis.runs.positions import MEASURES, Measure
from analysis.view import OF_FIGURES, UNIT, ThemeOption, UnitOption
from model.arguments import check_choice
from model.command_options import ListOf
from model.errors import MicroStepError

SMOOTHING = 0.6


@dataclass(frozen=True)
class RunOptions:
    """How runs are named, and taken from an export."""

    folder: Annotated[str | None, typer.Option(help="Runs are named by their paths relative to this folder.")] = None
    seen: Annotated[
        str | None, typer.Option(help="seen.json of an export: draw what the folders held then, not now.")
    ] = None


@dataclass(frozen=True)
class RunsView:
    """How runs are looked at."""

    curves: Annotated[
        tuple[str, ...], typer.Option(help="Curves of the figure: loss, accuracy, ..."), ListOf(str), OF_FIGURES
    ] = ("loss",)
    x: Annotated[Axis, typer.Option(help="Horizontal axis of the curves."), OF_FIGURES] = "step"
    smoothing: Annotated[float, typer.Option(help="Smoothing of training curves, from 0 to 0.99."), OF_FIGURES] = (
        SMOOTHING
    )
    log: Annotated[
        bool, typer.Option("--log", help="Logarithmic axes of losses, gradient norm and rates."), OF_FIGURES
    ] = False
    measure: Annotated[Measure, typer.Option(help="What position_curves shows."), OF_FIGURES] = "accuracy"
    unit: UnitOption = UNIT
    theme: ThemeOption = "light"

    def __post_init__(self) -> None:
        if not self.curves:
            raise MicroStepError("no curve is chosen; choose at least one")
        for name in self.curves:
            curve(name)
        check_smoothing(self.smoothing)
        check_choice("axis", self.x, AXES)
        check_choice("measure", self.measure, MEASURES)
