"""What every figure takes and gives. A figure is drawn from a comparison, computes no score, and carries its data."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import plotly.graph_objects as go

from analysis.figures.theme import Theme
from analysis.score_registry import SCORES, Score, Unit
from model.errors import MicroStepError


@dataclass(frozen=True)
class View:
    """How a comparison is looked at. Changing it runs no model."""

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
        """Label of an axis that shows it."""
        return f"{self.shown.title}, {self.shown.unit(self.unit)}"


@dataclass(frozen=True)
class Drawn:
    """A figure with its words and its numbers."""

    name: str
    title: str
    how: str  # one line: what it shows and how it is computed
    make: Callable[[], go.Figure]
    tabulate: Callable[[], pd.DataFrame]

    @cached_property
    def data(self) -> pd.DataFrame:
        """The numbers behind the figure, tabulated when they are first asked for."""
        return self.tabulate()

    @cached_property
    def figure(self) -> go.Figure:
        """The plotly figure, drawn when it is first looked at: a page may show its data another way."""
        return self.make()


def check_figure(name: str, figures: Collection[str]) -> None:
    """Raise MicroStepError, before heavy work, if no figure has this name."""
    if name not in figures:
        raise MicroStepError(f"unknown figure {name!r}; use one of {', '.join(figures)}")


def visible(text: str, longest: int = 40) -> str:
    """Text on one line, with marks for white space and codes for what cannot be seen."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(_MARKS.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in short)


def safe(text: str, longest: int = 40) -> str:
    """The same for plotly's labels and hover boxes, which read HTML."""
    return html.escape(visible(text, longest), quote=False)


_MARKS = {" ": "·", "\n": "¶", "\t": "→", "\r": "↵"}
