"""The tables of a ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.ranking.ranking import GroupMean, Ranking

TAKEN = (
    *("rank", "document", "document_b", "text", "documents", "tokens", "clear", "score", "unit"),
    *(f"{name}{end}" for name in ("a", "b", "difference") for end in ("", "_low", "_high")),
)


def ranking_table(ranking: Ranking, first: int = 0, count: int | None = None) -> pd.DataFrame:
    """A row for each document, in order: all, or `count` from the place `first` on.

    A column of the corpus that has the name of one of ours is called `corpus_...`.
    """
    at = ranking.order[first : None if count is None else first + count]
    pairing = ranking.pairing
    here = pairing.at_a[at]
    table: dict[str, object] = {"rank": np.arange(first + 1, first + 1 + len(at)), "document": pairing.a.number[here]}
    if pairing.b is not None:
        table["document_b"] = pairing.b.number[pairing.at_b[at]]
    table["text"] = [pairing.a.beginning[place] for place in here.tolist()]
    if ranking.column is not None:
        table[column_title(str(ranking.view.column))] = [ranking.column[place] for place in at.tolist()]
    table |= {"tokens": ranking.tokens[at], "a": ranking.a[at]}
    if pairing.paired:
        table |= {"b": ranking.b[at], "difference": ranking.change[at]}
    return pd.DataFrame(table | score_columns(ranking))


def group_table(groups: Sequence[GroupMean], ranking: Ranking, what: str) -> pd.DataFrame:
    """A row for each group.

    Args:
        groups: of a ranking.
        ranking: that gave them.
        what: the name of the column that holds the groups: role, or a column of the corpus.
    """
    rows = []
    for group in groups:
        row: dict[str, object] = {column_title(what): group.group}
        row |= {"documents": group.documents, "tokens": group.tokens, **group.a.columns("a")}
        if group.b is not None and group.difference is not None:
            row |= group.b.columns("b") | group.difference.columns("difference") | {"clear": group.difference.clear}
        rows.append(row | score_columns(ranking))
    return pd.DataFrame(rows)


def column_title(name: str) -> str:
    """What a column of the corpus is called beside ours."""
    return f"corpus_{name}" if name.removeprefix("corpus_") in TAKEN else name


def score_columns(ranking: Ranking) -> dict[str, str]:
    """The columns that say of which score the numbers are, and in which unit."""
    return {"score": ranking.view.score, "unit": ranking.view.shown.unit(ranking.view.unit)}
