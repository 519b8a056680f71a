"""Every table that a command writes names its unit, there is one default for all commands, and thresholds go along."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from analysis.score_registry import significant
from analysis.view import UNIT, UnitOption
from micro_step import cli

Command = Callable[..., tuple[int, str, list[str]]]
TEXT = ("--text", "the cat sat on the mat, and the dog sat on the cat")
RULE = ("--strategy", "entropy:threshold=3.0")


def test_one_default_for_all_commands() -> None:
    """It was nats for score, segment, generate and runs, and bits for compare and every figure."""
    found = []
    for name in cli.VERBS:
        if name.startswith("bench"):
            continue
        options = inspect.signature(cli.VERBS[name].load()).parameters.values()
        found += [option.default for option in options if option.annotation == UnitOption]
    assert set(found) == {UNIT} and len(found) >= 6


def _table(command: Command, folder: Path, *words: object) -> pd.DataFrame:
    out = folder / "x.csv"
    code, _, errors = command(*words, "--out", out)
    assert code == 0, errors
    return pd.read_csv(out, keep_default_na=False, na_values=[""])


def test_every_table_of_a_text_names_its_unit(models: dict[str, Path], command: Command, tmp_path: Path) -> None:
    """Most named none, so that a file could not be told from one in the other unit."""
    one, two = ("--model", models["base"], *TEXT), ("--a", models["base"], "--b", models["sft"], *TEXT)
    unit = "bits"
    asked = ("--unit", unit)
    for words in (("score", *one), ("segment", *one, "--strategy", "entropy"), ("compare", *two)):
        assert set(_table(command, tmp_path, *words, *asked)["unit"]) == {unit}
    for name in ("strip", "line", "scatter", "distribution", "changes"):
        assert set(_table(command, tmp_path, "compare", "--figure", name, *two, *asked)["unit"]) == {unit}
    assert set(_table(command, tmp_path, "compare", "--figure", "distribution", *two, "--score", "margin")["unit"]) == {
        "probability"
    }
    cells = tmp_path / "cells.csv"
    assert command("compare", *two, *asked, "--cells", cells)[0] == 0 and set(pd.read_csv(cells)["unit"]) == {unit}
    attributed = _table(command, tmp_path, "attribute", *one, "--at", 5, "--method", "input_x_gradient", "--unit", unit)
    assert set(attributed["unit"]) == {unit}
    for name in ("segments", "values", "curves", "unstable"):
        table = _table(command, tmp_path, "segment", "--figure", name, *two, *RULE, "--strategy", "confidence", *asked)
        assert set(table["unit"]) <= {unit, "probability"} and (name == "unstable" or unit in set(table["unit"]))
    solved = _table(command, tmp_path, "solve", *one, "--strategy", "entropy", "--target-length", 2)
    assert set(solved["unit"]) == {"nats"}


@pytest.mark.parametrize("unit", ["nats", "bits"])
def test_a_threshold_is_in_the_unit_of_the_values(
    models: dict[str, Path], command: Command, tmp_path: Path, unit: str
) -> None:
    """The figure values wrote a bar in bits beside a threshold in nats."""
    words = ("segment", "--figure", "values", "--a", models["base"], *TEXT, *RULE, "--unit", unit)
    table = _table(command, tmp_path, *words)
    bar = 3.0 / (math.log(2) if unit == "bits" else 1.0)
    assert table["bar"].tolist() == pytest.approx([bar] * len(table))
    assert set(table["strategy"]) == {f"Entropy, threshold {significant(bar)} {unit}"}
    starts = table["starts_segment"] & (table["why"].str.contains("above"))
    assert (table.loc[starts, "value"] > bar).all() and set(table["unit"]) == {unit}
