"""Recipes are read as typed YAML; every mistake is one line that names the file and the key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from data.yaml_config import StrictModel, dump_yaml, read_yaml
from model.errors import MicroStepError


class Inner(StrictModel):
    steps: Annotated[int, Field(ge=1)]
    rate: float = 0.1


class Outer(StrictModel):
    name: str
    inner: Inner | None = None
    stages: tuple[Inner, ...] = ()
    named: dict[str, Inner] = Field(default={})
    words: tuple[str, ...] = ("a",)


def read(folder: Path, text: str) -> Outer:
    (folder / "r.yaml").write_text(text, "utf-8")
    return read_yaml(folder / "r.yaml", Outer)


def test_values_are_read_and_written_with_their_defaults(tmp_path: Path) -> None:
    text = "name: é\ninner: {steps: 2}\nstages: [{steps: 1, rate: 1.0e-3}]\nnamed: {x: {steps: 3}}\n"
    found = read(tmp_path, text)
    assert (found.name, found.inner, found.stages[0].rate) == ("é", Inner(steps=2), 1e-3)
    assert found.named["x"].steps == 3
    written = dump_yaml(found)
    assert "rate: 0.1" in written and "- a\n" in written and "é" in written
    assert read(tmp_path, written) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("naem: x\n", "unknown key 'naem'; did you mean 'name'?"),
        ("name: x\ninner: {stepz: 1, steps: 1}\n", "unknown key 'inner.stepz'; did you mean 'steps'?"),
        ("name: x\nstages: [{steps: 1}, {steps: 1, rat: 1}]\n", "unknown key 'stages.1.rat'; did you mean 'rate'?"),
        ("name: x\nnamed: {y: {stop: 1, steps: 1}}\n", "unknown key 'named.y.stop'; did you mean 'steps'?"),
        ("name: x\nzzz: 1\n", "unknown key 'zzz'; choose from name, inner, stages"),
        ("inner: {steps: 1}\n", "the key 'name' is missing"),
        ("name: x\ninner: {steps: '3'}\n", "inner.steps: Input should be a valid integer, got '3'"),
        ("name: x\ninner: {steps: 0}\n", "inner.steps: Input should be greater than or equal to 1, got 0"),
        ("name: 2024-01-01\n", "not a text, number, list or mapping"),
        ("name: x\nname: y\n", "line 2 is not valid YAML: 'name' is given twice"),
        ("name: [x\n", "is not valid YAML"),
        ("name: !!python/object/apply:os.system [ls]\n", "is not valid YAML: could not determine a constructor"),
        ("- name\n", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("name: x\ninner: {steps: .nan}\n", "inner.steps"),
        ("? [a, b]\n: x\n", "is not valid YAML"),
    ],
)
def test_a_mistake_is_one_line_that_names_file_and_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MicroStepError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "r.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MicroStepError, match=r"no\.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "no.yaml", Outer)
    with pytest.raises(MicroStepError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path, Outer)
    (tmp_path / "b.yaml").write_bytes(b"\xff\x00")
    with pytest.raises(MicroStepError, match=r"b\.yaml is not valid YAML"):
        read_yaml(tmp_path / "b.yaml", Outer)
    (tmp_path / "deep.yaml").write_text("name: " + "[" * 5000, "utf-8")
    with pytest.raises(MicroStepError, match=r"deep\.yaml"):
        read_yaml(tmp_path / "deep.yaml", Outer)


def test_more_mistakes_are_counted(tmp_path: Path) -> None:
    with pytest.raises(MicroStepError, match=r"unknown key 'x'.*\(1 more\)"):
        read(tmp_path, "name: 3\nx: 1\n")
