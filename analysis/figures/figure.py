"""The one type of all figures: a title, a caption, a plotly figure and the numbers behind it, both made lazily."""

from __future__ import annotations

import html
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, ParamSpec

import pandas as pd
import plotly.graph_objects as go

from model.arguments import check_choice

Parameters = ParamSpec("Parameters")


@dataclass(frozen=True)
class Figure:
    """A figure with its title, caption and data. It is drawn from a result and computes no score."""

    name: str
    title: str
    caption: str  # one line: what it shows and how it is computed
    make: Callable[[], go.Figure]
    tabulate: Callable[[], pd.DataFrame]
    write_page: Callable[[], str] | None = None  # a web page of its own, where it is more than the plotly figure

    @cached_property
    def data(self) -> pd.DataFrame:
        """The numbers behind the figure, tabulated on first use."""
        return self.tabulate()

    @cached_property
    def figure(self) -> go.Figure:
        """The plotly figure, drawn on first use: a page may show only the data."""
        return self.make()


def check_figure(name: str, figures: Collection[str]) -> None:
    """Raise MicroStepError, before heavy work, if no figure has this name."""
    check_choice("figure", name, figures)


class FigureSet(dict[str, Callable[Parameters, Figure]], Generic[Parameters]):
    """The figures of a view, by name: each a function of what it shows and how."""

    def draw(self, name: str, *args: Parameters.args, **options: Parameters.kwargs) -> Figure:
        """Draw a figure by name.

        Raises:
            MicroStepError: no figure has this name, or it cannot be drawn of this.
        """
        check_figure(name, self)
        return self[name](*args, **options)


def visible(text: str, longest: int = 40) -> str:
    """Text on one line, with marks for white space and codes for invisible characters."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(_MARKS.get(c, c if c.isprintable() else f"\\u{ord(c):04x}") for c in short)


def safe(text: str, longest: int = 40) -> str:
    """Like `visible`, for plotly's labels and hover boxes, which read HTML."""
    return html.escape(visible(text, longest), quote=False)


_MARKS = {" ": "·", "\n": "¶", "\t": "→", "\r": "↵"}
