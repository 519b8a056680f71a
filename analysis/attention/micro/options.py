"""Options of the command `micro-attention`: which segments, and how a figure is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from analysis.view import OF_FIGURES, ThemeOption


@dataclass(frozen=True)
class WrittenOptions:
    """Whether the segments are those that the model writes."""

    written: Annotated[
        bool,
        typer.Option(
            "--written",
            help="Let the model answer the text, and take the segments that it writes; --rule, --confidence and"
            " --max-new-tokens apply to that answer.",
        ),
    ] = False


@dataclass(frozen=True)
class MicroView:
    """How micro attention is looked at. Changing it runs no model."""

    theme: ThemeOption = "light"
    layer: Annotated[int, typer.Option(min=0, help="Layer of the micro decoder, from 0."), OF_FIGURES] = 0
    segment: Annotated[
        int | None,
        typer.Option(min=0, help="Only this segment, from 0, of those with two tokens and more; default: their mean."),
    ] = None
