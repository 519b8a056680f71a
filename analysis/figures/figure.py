"""What every figure takes and gives. A figure is drawn from a comparison, computes no score, and carries its data."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import pandas as pd
import plotly.graph_objects as go

from model.errors import MicroStepError


@dataclass(frozen=True)
class Figure:
    """A figure with its words and its numbers."""

    name: str
    title: str
    caption: str  # one line: what it shows and how it is computed
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
