"""How documents are ranked: options of `micro-step corpus rank`, controls of the page, arguments of the function."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import typer

from analysis.ranking.document_scores import CONTENT, SUMMED
from analysis.score_registry import SCORES, Score
from analysis.view import UNIT, ThemeOption, UnitOption
from model.arguments import check_choice
from model.command_options import ListOf
from model.errors import MicroStepError

Sort = Literal["change", "a", "b", "document"]
Show = Literal["all", "rises", "falls"]
BITS_PER_BYTE = Score(
    "bits_per_byte",
    "bits per byte",
    "−log2 p of the text per UTF-8 byte: the one score that models with different tokenizers share.",
    low="expected",
    high="surprising",
    top_bits=4,
    rise="B expects the text less",
    drop="B expects the text more",
    plain_unit="bits per byte",
)
RANKED: dict[str, Score] = {**{name: SCORES[name] for name in SUMMED}, BITS_PER_BYTE.name: BITS_PER_BYTE}


@dataclass(frozen=True)
class RankView:
    """Which documents are shown, and in which order."""

    score: Annotated[str, typer.Option(help=f"Score of a document, a mean over its tokens: {', '.join(RANKED)}.")] = (
        "entropy"
    )
    sort: Annotated[
        Sort, typer.Option(help="change: |B − A|, the largest first; a, b: the least sure first; document: by number.")
    ] = "change"
    reverse: Annotated[bool, typer.Option("--reverse", help="The other way round.")] = False
    show: Annotated[Show, typer.Option(help="Only documents in which the score rises, or falls, from A to B.")] = "all"
    roles: Annotated[
        tuple[str, ...],
        typer.Option("--roles", help="Tokens of these roles only, as user,assistant. Default: all but the template."),
        ListOf(str),
    ] = ()
    column: Annotated[str | None, typer.Option(help="Column of the corpus that groups documents, as domain.")] = None
    values: Annotated[
        list[str] | None,
        typer.Option("--value", help="Only documents with this value in the column; may be repeated."),
    ] = None
    top: Annotated[int, typer.Option(min=1, help="Rows of the figure, and of a table that is not saved.")] = 25
    unit: UnitOption = UNIT
    theme: ThemeOption = "light"

    def __post_init__(self) -> None:
        check_choice("score", self.score, RANKED)
        check_choice("order", self.sort, get_args(Sort))
        check_choice("change", self.show, get_args(Show))
        for role in self.roles:
            check_choice("role", role, CONTENT)
        if self.values and self.column is None:
            raise MicroStepError("values are those of a column; name the column, too")

    @property
    def shown(self) -> Score:
        """The score that ranks."""
        return RANKED[self.score]

    @property
    def axis(self) -> str:
        """The label of an axis that shows the score."""
        unit = self.shown.unit(self.unit)
        return self.shown.title if self.shown.title == unit else f"mean {self.shown.title}, {unit}"

    @property
    def said(self) -> str:
        """The score and its unit within a sentence."""
        return self.axis.replace(", ", " in ") if self.shown.information else self.axis.partition(",")[0]
