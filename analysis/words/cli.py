"""`micro-step corpus table`: the scores of a store, or of two, by word or by token, with the columns of the corpus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.options import Out, check_table, print_notes, print_or_save
from analysis.view import UNIT, UnitOption
from analysis.words.options import ByOption
from model.storage.places import place_of

if TYPE_CHECKING:
    from analysis.words.pieces import MadeTable


def corpus_table_command(
    store: Annotated[str, typer.Argument(help="Store of a corpus's scores.")],
    against: Annotated[str | None, typer.Option(help="Store of the same corpus under a second model.")] = None,
    by: ByOption = "word",
    unit: UnitOption = UNIT,
    out: Out = None,
) -> None:
    """The scores of a store by word or by token, with all columns of its documents. No model is loaded."""
    check_table(out)
    from analysis.words.stored import store_pieces
    from data.corpus.store import open_store

    stores = tuple(open_store(place_of(name)) for name in (store, against) if name is not None)
    print_made(store_pieces(stores, by, unit).made(out), out)


def print_made(made: MadeTable, out: Path | None) -> None:
    """Say what a reader must know of a table, and show it if it was not written."""
    if made.table is None:
        print(out)
        print_notes("", (*made.notes, made.summary))
    else:
        print_notes("", made.notes)
        print_or_save(made.table, None, made.summary)
