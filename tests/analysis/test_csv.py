"""CSV files: any text survives any reader, and our own reader gets back exactly what was written."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable

import pandas as pd
import pyarrow.csv
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.export import read_csv, table_bytes
from evals.ablation.table import as_csv, rows_of

pytestmark = pytest.mark.slow
on_a_busy_machine = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # time says nothing here

AWKWARD = ["\r", "\r\n", "\n", '"', "\0", "\v", "\f", "\x1a", "\x1c", "\x85", "\u2028", "\ufeff", "=", "+", "-", "@"]
AWKWARD += ["\t", " ", ",", ";", "'", "\\", "#", "|", "(", "a", "null", "NA", "\u0301", "\U0001f600"]
texts = st.lists(st.sampled_from(AWKWARD) | st.characters(exclude_categories=["Cs"]), max_size=6).map("".join)


def _rows(data: bytes) -> list[str]:
    return [row[1] for row in csv.reader(io.StringIO(data.decode(), newline=""))][1:]


def _lines(data: bytes) -> list[str]:
    return [row[1] for row in csv.reader(data.decode().splitlines(keepends=True))][1:]


def _pandas(data: bytes, engine: str) -> list[str]:
    return list(pd.read_csv(io.BytesIO(data), engine=engine, keep_default_na=False)["token"])


def _arrow(data: bytes) -> list[str]:
    options = pyarrow.csv.ConvertOptions(column_types={"token": pyarrow.string()})
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return list(pyarrow.csv.read_csv(io.BytesIO(data), None, parse, options)["token"].to_pylist())


READERS: dict[str, Callable[[bytes], list[str]]] = {
    "csv": _rows,
    "csv over lines": _lines,
    "pandas, c": lambda data: _pandas(data, "c"),
    "pandas, python": lambda data: _pandas(data, "python"),
    "pyarrow": _arrow,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@on_a_busy_machine
@given(st.lists(texts, min_size=1, max_size=6))
def test_any_text_survives_any_reader(read: Callable[[bytes], list[str]], tokens: list[str]) -> None:
    """A bare carriage return was not quoted, and split its row in two: 24 rows for 21 tokens, and a wrong mean."""
    tokens = [f"{token}x" for token in tokens]  # no number, and not nothing: what a reader makes of these is its own
    data = table_bytes(pd.DataFrame({"position": range(len(tokens)), "token": tokens, "score": 0.5}), "csv")
    assert [cell.removeprefix("'") for cell in read(data)] == [cell.removeprefix("'") for cell in tokens]


@on_a_busy_machine
@given(st.lists(texts.filter(bool), min_size=1, max_size=6))
def test_what_is_read_again_is_what_was_written(tokens: list[str]) -> None:
    """The apostrophe before a formula could not be told from one that a text began with, nor "null" from nothing."""
    table = pd.DataFrame({"token": pd.Series([*tokens, "'=f(x)", "''=f(x)", "=f(x)", "null"], dtype="str")})
    table["score"] = [0.5, *[None] * (len(table) - 1)]
    again = read_csv(io.BytesIO(table_bytes(table, "csv")), dtype={"token": "str"})
    assert list(again["token"]) == list(table["token"])
    assert again["score"].isna().sum() == len(table) - 1


def test_lines_end_with_a_line_feed_and_only_what_must_be_quoted_is() -> None:
    table = pd.DataFrame({"token": ["a", "\r", "b\r\nc", "\u2028", "d,e"], "score": [1.0, None, 0.5, 2.0, 3.0]})
    written = table_bytes(table, "csv").decode()
    assert written == 'token,score\na,1.0\n"\r",\n"b\r\nc",0.5\n"\u2028",2.0\n"d,e",3.0\n'


def test_the_ablation_table_is_written_as_every_other() -> None:
    """It had a writer of its own, which left formulas as they were."""
    told = as_csv((0,), rows_of({'=HYPERLINK("x")\r': [{"nll": 1.0}], "b": [{"nll": 2.0}]}))
    lines = list(csv.DictReader(io.StringIO(told, newline="")))
    assert [line["variant"] for line in lines] == ['\'=HYPERLINK("x")\r', "b"]
    assert [line["half_95"] for line in lines] == ["", ""] and lines[1]["difference"] == "1.0"
