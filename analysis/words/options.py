"""Options of the tables by word and by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from analysis.options import Column, Ids, id_columns
from model.errors import MicroStepError

By = Literal["word", "token"]
ByOption = Annotated[By, typer.Option(help="What a row of the table is: a word (or a region), or a token.")]


@dataclass(frozen=True)
class StimulusOptions:
    """How the texts stand in a table."""

    column: Column = "text"
    ids: Ids = None
    by: ByOption = "word"
    regions: Annotated[
        str | None,
        typer.Option(
            help="Column with the same text divided into regions by |, or as a list of texts; a row of the table is"
            " then a region instead of a word."
        ),
    ] = None
    rows: Annotated[
        Literal["texts", "regions"],
        typer.Option(help="What a row of the file is: a text, or one region of the text that --id names."),
    ] = "texts"
    join_with: Annotated[str, typer.Option(help="Stands between the regions of --rows regions.")] = " "

    def __post_init__(self) -> None:
        if self.rows == "regions" and (not self.id_columns or self.regions):
            raise MicroStepError("--rows regions needs --id, the columns that name a text, and no --regions")

    @property
    def id_columns(self) -> tuple[str, ...]:
        """Those of --id."""
        return id_columns(self.ids)
