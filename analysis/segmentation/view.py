"""How segmentations are looked at. The fields of the view are options of the command `segment`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from analysis.view import OF_FIGURES, UNIT, PinnedOption, ThemeOption, UnitOption
from model.arguments import check_choice
from model.errors import MicroStepError

Metric = Literal["f1", "precision", "recall", "window_diff", "pk"]
METRICS: dict[str, tuple[str, str]] = {
    "f1": ("F1", "2 × shared boundaries / both numbers of boundaries; 1 if the segments are the same."),
    "precision": ("precision", "share of the column's boundaries that the row has too."),
    "recall": ("recall", "share of the row's boundaries that the column has too."),
    "window_diff": (
        "WindowDiff",
        "share of windows with different numbers of boundaries; 0 if the segments are the same.",
    ),
    "pk": (
        "Pk",
        "share of windows whose ends are in one segment for one of the two only; 0 if the segments are the same.",
    ),
}


@dataclass(frozen=True)
class CutView:
    """How cuts are looked at. Changing it runs no model."""

    unit: UnitOption = UNIT
    theme: ThemeOption = "light"
    pinned: PinnedOption = None  # a character of the text
    chosen: Annotated[int, typer.Option(min=0, help="For values: which of the strategies, from 0."), OF_FIGURES] = 0
    metric: Annotated[Metric, typer.Option(help="For agreement."), OF_FIGURES] = "f1"
    change: Annotated[
        float, typer.Option(help="For unstable: change of the parameter, as a share of it."), OF_FIGURES
    ] = 0.05

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, METRICS)
        if not 0 < self.change <= 1:
            raise MicroStepError(f"the change of a parameter must be a share from 0 to 1, got {self.change:g}")
