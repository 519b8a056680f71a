"""The tables behind the figures of attention."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.attention.maps import MapCells
from analysis.attention.overview import head_table
from analysis.attention.result import AttentionResult
from analysis.attention.statistics import STATISTICS
from analysis.figures.figure import visible
from analysis.score_registry import significant


def finding(result: AttentionResult) -> str:
    """Where the map's attention goes most, in one sentence."""
    weight, query = result.spread()
    names = [visible(name, 30) for name in result.names()]
    who = f"In {result.view.what} of {result.title}" if not result.difference else f"In {result.view.what}"
    if np.isnan(weight).all():
        return f"{who}, nothing is attended to."
    most = int(np.nanargmax(np.abs(weight)))
    amount, subject = (
        significant(float(weight[most])),
        "each position on average" if query is None else f"“{names[query]}”",
    )
    if result.difference:
        more = "B" if weight[most] > 0 else "A"
        return f"{who}, the models differ most in how much {subject} attends to “{names[most]}”: {more} gives it more."
    return f"{who}, {subject} attends most to “{names[most]}”: its weight is {amount}."


def statistic_table(result: AttentionResult) -> pd.DataFrame:
    """A row for each layer and head with all statistics, of one model or of B minus A."""
    return head_table(result.layers, {each.column: result.statistic(name) for name, each in STATISTICS.items()})


def pooled_table(result: AttentionResult, step: int) -> pd.DataFrame:
    """A row for each cell of the small maps up to the diagonal; `step` positions to a cell."""
    maps = result.maps()
    layer, head, row, column = np.nonzero(~np.isnan(maps))
    return pd.DataFrame(
        {
            "layer": np.array(result.layers)[layer],
            "head": head,
            "query": row * step,
            "key": column * step,
            "weight": maps[layer, head, row, column],
        }
    )


def map_table(result: AttentionResult, cells: MapCells) -> pd.DataFrame:
    """A row for each cell up to the diagonal: query, key, their words, weight."""
    row, column = np.nonzero(~np.isnan(cells.weight))
    names = np.array(result.names(), dtype=object)
    query, key = cells.queries[row], cells.keys[column]
    return pd.DataFrame(
        {
            "query": query,
            "key": key,
            "query_text": pd.Series(names[query], dtype="str"),
            "key_text": pd.Series(names[key], dtype="str"),
            "cell": cells.step,
            "weight": cells.weight[row, column].astype(np.float64),
        }
    )


def row_table(result: AttentionResult, weight: NDArray[np.float64]) -> pd.DataFrame:
    """A row for each position with its weight in one row of the large map, [size]."""
    reading, rows = result.reading, result.of_rows()
    return pd.DataFrame(
        {
            "position": np.arange(len(reading)),
            "text": pd.Series(reading.words, dtype="str"),
            "start": reading.source[:, 0],
            "end": reading.source[:, 1],
            "segment": reading.segment,
            "row": rows,
            "weight": weight[rows],
        }
    )
