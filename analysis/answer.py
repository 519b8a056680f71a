"""What the functions of the face return, and commands show: an answer with a table, figures, a summary and files."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import pandas as pd
import plotly.graph_objects as go

from analysis.export import FIGURE_FORMATS, TABLES, check_out, save_figure, save_table, standalone
from analysis.figures.figure import Figure, check_figure
from analysis.figures.notebook_figure import NotebookFigure
from analysis.provenance import Provenance
from analysis.token_strip.notebook import NotebookStrip
from model.arguments import check_fields
from model.errors import MicroStepError

Raw = TypeVar("Raw")
SHOWN_ROWS = 10  # of the table in a notebook
PLAIN_WIDTH = 100  # letters of its lines in plain text
NOTEBOOK_WIDTH = 700  # pixels, of a figure in a narrow notebook, and of plotly's pictures


@dataclass(frozen=True, repr=False, eq=False)
class Result(Generic[Raw]):
    """An answer.

        result.summary              # a few words
        result.table                # a pandas DataFrame: what the command of the same name writes
        result.figure("line")       # a plotly figure; `figures` lists the names
        result.strip()              # the text, token by token, in a notebook
        result.export("line.svg", "line")

    `raw` is the frozen answer of the analysis, for all that is not in the table.
    """

    kind: str  # the function that gave it
    raw: Raw
    figures: tuple[str, ...]  # names
    view: Any  # a frozen dataclass: how figures look unless they are told otherwise
    tabulate: Callable[[], pd.DataFrame]
    summarise: Callable[[], str]
    draw: Callable[[str, Any], Figure]  # of a figure's name and a view
    provenance: Callable[[str, Any], Provenance]  # of the same
    notes: tuple[str, ...] = ()  # what a reader must know: a text that was cut off, a template that is missing, ...
    lay: Callable[[Any], NotebookStrip] | None = None  # of a view: the token strip, where there is one

    def __post_init__(self) -> None:
        check_fields(self.view)

    @cached_property
    def table(self) -> pd.DataFrame:
        return self.tabulate()

    @cached_property
    def summary(self) -> str:
        return self.summarise()

    def figure(self, name: str | None = None, **options: Any) -> go.Figure:
        """A figure, under a head that says what it shows and of which models.

        Args:
            name: one of `figures`; the first if not given.
            options: fields of `view` that are to be others: theme, pinned, ...

        Raises:
            MicroStepError: there is no such figure or option.
        """
        drawn, view = self._drawn(name, options)
        shown = standalone(drawn, self.provenance(drawn.name, view), NOTEBOOK_WIDTH)
        return NotebookFigure(shown, words=lambda: _words(drawn))

    def strip(self, **options: Any) -> NotebookStrip:
        """The token strip, which a notebook shows as the app does.

        Args:
            options: fields of `view` that are to be others: score, lens, pinned, ...

        Raises:
            MicroStepError: there is no such option, or no strip of this result.
        """
        if self.lay is None:
            raise MicroStepError(f"{self.kind} has no token strip; it has the figures {', '.join(self.figures)}")
        return self.lay(self._view(options))

    def data(self, name: str | None = None, **options: Any) -> pd.DataFrame:
        """The numbers behind a figure; arguments and errors as `figure`."""
        return self._drawn(name, options)[0].data

    def export(self, path: str | Path, figure: str | None = None, **options: Any) -> Path:
        """Write the table or a figure; the suffix chooses.

        Args:
            path: .csv, .parquet and .json hold the table, or the data of the figure that is named; .svg, .png, .pdf
                and .html hold a figure; .zip holds a figure, its data, and the command that reproduces it.
            figure: one of `figures`; the first if not given.
            options: as `figure`.

        Raises:
            ExportError: the file cannot be written, or its suffix is unknown.
            MicroStepError: there is no such figure or option.
        """
        path = Path(path)
        check_out(path, FIGURE_FORMATS)
        suffix = path.suffix.lstrip(".").lower()
        if suffix in TABLES and figure is None:
            save_table(self.table, path)
            return path
        drawn, view = self._drawn(figure, options)
        save_figure(drawn, path, self.provenance(drawn.name, view))
        return path

    def _drawn(self, name: str | None, options: dict[str, Any]) -> tuple[Figure, Any]:
        chosen = self.figures[0] if name is None and self.figures else name or ""
        check_figure(chosen, self.figures)
        view = self._view(options)
        return self.draw(chosen, view), view

    def _view(self, options: dict[str, Any]) -> Any:
        known = [field.name for field in dataclasses.fields(self.view)]
        for option in options:
            if option not in known:
                raise MicroStepError(f"a figure has no option {option!r}; use one of {', '.join(known)}")
        view = dataclasses.replace(self.view, **options)
        check_fields(view)
        return view

    def __repr__(self) -> str:
        return f"<{self.kind}: {self.summary}>"

    def _repr_html_(self) -> str:
        """How a notebook shows it: the summary, the token strip, and the first rows of the table."""
        notes = "".join(f"<p><i>{html.escape(note)}</i></p>" for note in self.notes)
        strip = "" if self.lay is None else self.lay(self.view).html
        return f"<p>{html.escape(self.summary)}</p>{notes}{strip}{_rows(self.table)}"


def _words(drawn: Figure) -> str:
    """A figure in plain text: what it shows, and the first of its numbers."""
    more = len(drawn.data) - SHOWN_ROWS
    rest = f"\n{more:,} more rows in .data({drawn.name!r})" if more > 0 else ""
    text = f"{drawn.title}\n{drawn.caption}\n\n{drawn.data.head(SHOWN_ROWS).to_string(line_width=PLAIN_WIDTH)}{rest}"
    return "".join(c if c.isprintable() or c == "\n" else f"\\u{ord(c):04x}" for c in text)


def _rows(table: pd.DataFrame) -> str:
    more = len(table) - SHOWN_ROWS
    rest = f"<p>{more:,} more rows in <code>.table</code></p>" if more > 0 else ""
    return f"{table.head(SHOWN_ROWS).to_html()}{rest}"
