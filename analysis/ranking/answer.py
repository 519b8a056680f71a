"""A ranking as the command and Python give it: its table, its figures, and what a reader must know."""

from __future__ import annotations

import dataclasses
from functools import partial

from analysis.answer import Result
from analysis.provenance import Provenance, drawing_lines, told
from analysis.ranking.document_scores import document_scores
from analysis.ranking.figures import FIGURES, draw
from analysis.ranking.pairing import Pairing, pairing
from analysis.ranking.ranking import Ranking, ranking
from analysis.ranking.tables import group_table, ranking_table
from analysis.ranking.view import RankView
from analysis.score_registry import significant
from analysis.uncertainty.summary import signed
from data.corpus.store import open_store
from model.command_options import figure_command
from model.storage.places import Place, absolute


def open_pair(a: Place, b: Place | None) -> Pairing:
    """Read one or two stores, and match their documents.

    Raises:
        MicroStepError: a folder holds no complete store, or they have no text in common.
    """
    return pairing(document_scores(open_store(a)), None if b is None else document_scores(open_store(b)))


def rank(pair: Pairing, view: RankView, table: str = "ranking") -> Result[Ranking]:
    """Rank documents; `table` is one of TABLES."""
    found = ranking(pair, view)
    return Result(
        "rank_documents",
        found,
        tuple(name for name in FIGURES if name != "column_means" or view.column is not None),
        view,
        lambda: TABLES[table](found),
        lambda: finding(found),
        lambda name, looked: draw(name, ranking(pair, looked)),
        lambda _, looked: origin(ranking(pair, looked)),
        notes(pair),
    )


TABLES = {
    "ranking": lambda found: ranking_table(found),
    "roles": lambda found: group_table(found.by_role(), found, "role"),
    "columns": lambda found: group_table(found.by_column(), found, found.view.column or "column"),
}


def notes(pair: Pairing) -> tuple[str, ...]:
    """What a reader must know of the stores and their match."""
    sides = [("A", pair.a), *([("B", pair.b)] if pair.b is not None else [])]
    told = [f"{key}, {side.store.facts.name}: {note}" for key, side in sides for note in side.store.notes]
    return (*pair.notes, *told)


def finding(found: Ranking) -> str:
    """The ranking in one sentence."""
    overall, view = found.overall, found.view
    a, n, unit = found.pairing.a.store.facts.name, counted(overall.documents), view.shown.unit(view.unit)
    title = view.shown.title
    mean = title if title == unit else f"mean {title}"
    unit = f" {unit}" if view.shown.information else ""
    if overall.difference is None or found.pairing.b is None:
        return f"Over {n}, the {mean} of {a} is {significant(overall.a.mean)}{unit} ({overall.a.ends()})."
    b, change = found.pairing.b.store.facts.name, overall.difference
    if not change.clear:
        bare = partial(signed, sign=False)
        size = f"{bare(change.mean)}{unit} ({change.ends(bare)})"
        return f"Over {n}, no clear change in {title} from {a} to {b}: B − A is {size}."
    way, how = (view.shown.rise, "rises") if change.mean > 0 else (view.shown.drop, "falls")
    than = f" than {a}" if way.startswith("B is") else ""
    low, high = sorted((abs(change.low), abs(change.high)))
    size = f"{significant(abs(change.mean))}{unit} ({significant(low)} to {significant(high)})"
    return f"Over {n}, {way.replace('B', b, 1)}{than}: the {mean} {how} by {size}."


def counted(documents: int) -> str:
    """A number of documents in words."""
    return f"{documents:,} document{'s' if documents != 1 else ''}"


def origin(found: Ranking) -> Provenance:
    """Where a figure of a ranking comes from. Stores may be large, so an export names their folders."""
    pair, view = found.pairing, found.view
    sides = {"a": pair.a.store, **({"b": pair.b.store} if pair.b is not None else {})}
    paths = {key: str(absolute(store.path)) for key, store in sides.items()}
    given = [*map(repr, paths.values()), *(f"{name}={value!r}" for name, value in told(view).items())]
    return Provenance(
        command=figure_command("corpus", view, names=["rank", *paths.values()]),
        request={"stores": paths},
        view=dataclasses.asdict(view),
        models={key: store.facts for key, store in sides.items()},
        notes={key: store.notes for key, store in sides.items()} | {"match": pair.notes},
        python=drawing_lines([], f"rank_documents({', '.join(given)})", {}),
    )
