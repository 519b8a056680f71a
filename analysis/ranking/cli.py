"""`micro-step corpus rank`: the documents of one or two stores, by how much changed or by their scores."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from analysis.options import Out, check_output, figure_option, print_answer, print_notes, print_or_save
from analysis.ranking.view import RankView
from model.command_options import flatten_options
from model.errors import MicroStepError
from model.storage.places import place_of

FIGURE_NAMES = ("ranking", "document_changes", "role_means", "column_means")


@flatten_options
def rank_command(
    view: RankView,
    store: Annotated[str, typer.Argument(help="Store of model A.")],
    against: Annotated[str | None, typer.Argument(help="Store of the same corpus under model B.")] = None,
    table: Annotated[
        Literal["ranking", "roles", "columns"],
        typer.Option(help="A row is a document, a role, or a value of the column that --column names."),
    ] = "ranking",
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """Rank the documents of a store by their score, or of two stores by what changed from A to B.

    Stores are read one shard at a time. Documents are matched by their text. Intervals are over documents.
    """
    check_output(out, figure, FIGURE_NAMES)
    if view.column is None and (table == "columns" or figure == "column_means"):
        raise MicroStepError("means by a column need --column, the name of the column")
    from analysis.ranking.answer import open_pair, rank

    answer = rank(open_pair(place_of(store), None if against is None else place_of(against)), view, table)
    if out is None and table == "ranking":
        from analysis.ranking.tables import ranking_table

        print_notes("", answer.notes)
        print_or_save(ranking_table(answer.raw, 0, view.top), None, answer.summary)
        return
    print_answer(answer, figure, out)
