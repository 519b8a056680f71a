"""The public face: what it exports, and that its tables and files are those of the commands."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import micro_step as ms
from micro_step.inputs import Models
from tests.support.command import call, repeat

ROOT = Path(__file__).parents[2]
TEXT = "The quick brown fox jumps over the lazy dog, twice."


def test_all_lists_what_there_is_and_nothing_else():
    for name in ms.__all__:
        assert callable(getattr(ms, name))
    public = {name for name, value in vars(ms).items() if not name.startswith("_") and callable(value)}
    assert public == set(ms.__all__)
    assert sorted(ms.__all__) == ms.__all__ == dir(ms)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        ms.nothing_like_it  # noqa: B018


def test_the_import_brings_nothing_heavy():
    heavy = "{'torch', 'transformers', 'pandas', 'plotly', 'numpy'}"
    code = f"import sys, micro_step; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_a_new_process_may_begin_with_a_view_that_looks_into_micro_step_models():
    code = "import micro_step; micro_step.depth"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda m: ms.score(m["base"], TEXT, unit="bits"), ["score", "--model", "base", "--unit", "bits"]),
        (lambda m: ms.score(m["base"], TEXT, history=3), ["score", "--model", "base", "--history", 3]),
        (lambda m: ms.compare(m["base"], m["other"], TEXT), ["compare", "--a", "base", "--b", "other"]),
        (
            lambda m: ms.compare(m["base"], m["sft"], TEXT, new_tokens=5),
            ["compare", "--a", "base", "--b", "sft", "--continue", 5],
        ),
        (
            lambda m: ms.segment(m["base"], TEXT, "entropy:threshold=5.7"),
            ["segment", "--model", "base", "--strategy", "entropy", "--set", "threshold=5.7"],
        ),
        (
            lambda m: ms.segment(m["base"], TEXT, "router"),
            ["segment", "--model", "base", "--strategy", "router"],
        ),
        (
            lambda m: ms.solve(m["base"], TEXT, "confidence", target_length=2),
            ["solve", "--model", "base", "--strategy", "confidence", "--target-length", 2],
        ),
        (
            lambda m: ms.solve(m["base"], TEXT, "entropy", target_segments=10),
            ["solve", "--model", "base", "--strategy", "entropy", "--target-segments", 10],
        ),
        (
            lambda m: ms.generate(m["base"], TEXT, confidence=0.1, max_new_tokens=6),
            ["generate", "--model", "base", "--confidence", 0.1, "--max-new-tokens", 6],
        ),
        (lambda m: ms.attention(m["base"], TEXT), ["attention", "--model", "base"]),
        (
            lambda m: ms.depth(m["base"], TEXT, b=m["other"], unit="bits"),
            ["depth", "--a", "base", "--b", "other", "--unit", "bits"],
        ),
        (
            lambda m: ms.attribute(m["base"], TEXT, method="input_x_gradient"),
            ["attribute", "--model", "base", "--method", "input_x_gradient"],
        ),
        (
            lambda m: ms.attribute(m["base"], TEXT, b=m["sft"], quantity="kl", at=5, method="input_x_gradient"),
            ["attribute", "--a", "base", "--b", "sft", "--quantity", "kl", "--at", 5,
             "--method", "input_x_gradient"],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)  # fmt: skip
def test_tables_are_those_of_the_commands(ask, words, models, tmp_path, monkeypatch):
    result, out = ask(models), tmp_path / "table.parquet"
    named = [models.get(word, word) for word in words]
    assert call(monkeypatch, *named, "--text", TEXT, "--out", out) == 0
    exported = pd.read_parquet(result.export(tmp_path / "own.parquet"))
    timed = [name for name in exported if name.startswith(("seconds", "tokens_per_second"))]
    pd.testing.assert_frame_equal(exported.drop(columns=timed), pd.read_parquet(out).drop(columns=timed))
    assert result.summary
    assert len(repr(result)) < 500
    assert len(repr(result.raw)) < 1000
    html = result._repr_html_()
    assert "<table" in html
    for name in result.figures:
        assert len(result.figure(name, theme="dark").data) > 0


@pytest.mark.parametrize(
    ("ask", "name"),
    [
        (lambda model: ms.segment(model, TEXT, "entropy", target_length=2), "values"),
        (lambda model: ms.solve(model, TEXT, "entropy", target_length=2), "curves"),
        (lambda model: ms.score(model, TEXT, history=3, unit="bits"), "line"),
        (lambda model: ms.depth(model, TEXT, unit="bits"), "heatmap"),
    ],
    ids=["segment", "solve", "score", "depth"],
)
def test_a_bundle_holds_the_command_that_reproduces_the_figure(ask, name, models, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.export.chrome", lambda: None)  # a picture would take seconds
    result = ask(models["base"])
    with zipfile.ZipFile(result.export(tmp_path / "figure.zip", name, pinned=3)) as bundle:
        bundle.extractall(tmp_path)
    expected = (tmp_path / "figure.csv").read_bytes()
    (tmp_path / "figure.csv").unlink()
    monkeypatch.chdir(tmp_path)
    assert repeat(monkeypatch, json.loads((tmp_path / "manifest.json").read_bytes())["command"]) == 0
    assert (tmp_path / "figure.csv").read_bytes() == expected
    assert result.export(tmp_path / "data.csv", name).read_bytes() == expected
    html = result.export(tmp_path / "figure.html", name, pinned=3).read_text()
    assert "plotly" in html and models["base"].name in html and "pinned: character 3" in html


def test_weights_of_attention_are_those_of_the_command(models, tmp_path, monkeypatch):
    maps = ms.attention(models["base"], TEXT).raw
    for head, words in ((1, ("--head", 1)), (None, ())):
        out = tmp_path / "map.npz"
        asked = ("attention", "--model", models["base"], "--text", TEXT, "--layer", 1, *words, "--out", out)
        assert call(monkeypatch, *asked) == 0
        np.testing.assert_array_equal(maps.weights(1, head), np.load(out)["attention"])


def test_models_and_texts_are_taken_as_they_come(models):
    loaded = ms.load(models["sft"], dtype="float32")
    expected = ms.score(models["sft"], TEXT).table
    for given in (loaded, loaded.spec, str(models["sft"])):
        pd.testing.assert_frame_equal(ms.score(given, TEXT).table, expected)
    messages = [{"role": "user", "content": TEXT}, {"role": "assistant", "content": "Why?"}]
    chat = ms.score(loaded, messages, chat=True).table
    assert {"user", "assistant", "template"} <= set(chat["role"])
    with pytest.raises(ms.TextError, match="role"):
        ms.score(loaded, [{"role": "nobody", "content": TEXT}])


def test_two_loaded_models_of_one_name_are_not_taken_for_one(models):
    with pytest.raises(ms.MicroStepError, match="two loaded models"):
        ms.compare(ms.load(models["base"]), ms.load(models["base"]), TEXT)


def test_models_of_the_catalog_stay_in_memory_and_folders_are_read_again(models):
    assert Models().load(ms.ModelSpec("tiny-base")) is ms.load("tiny-base")
    assert ms.load(models["base"]) is not ms.load(models["base"])


def test_what_does_not_exist_is_named_with_what_does(models, tmp_path):
    result = ms.compare(models["base"], models["sft"], TEXT, new_tokens=3)
    assert "scatter" not in result.figures
    with pytest.raises(ms.MicroStepError, match="strip, line"):
        result.figure("scatter")
    with pytest.raises(ms.MicroStepError, match=r"unti.*theme"):
        result.figure("line", unti="bits")
    with pytest.raises(ms.ExportError, match="svg"):
        result.export(tmp_path / "figure.doc")
    for option, wrong in (("unit", "bytes"), ("theme", "red")):
        with pytest.raises(ms.MicroStepError, match=option):
            result.figure("line", **{option: wrong})


@pytest.mark.parametrize(
    ("text", "options", "word"),
    [
        (None, {}, "NoneType"),
        (["a", "b"], {}, "list of messages"),
        (TEXT, {"unit": "bytes"}, "nats"),
        (TEXT, {"history": 2, "history_method": "nearly"}, "strided"),
        (TEXT, {"history": 2.5}, "whole number"),
        (TEXT, {"chat": "yes"}, "True or False"),
    ],
)
def test_wrong_arguments_are_refused(models, text, options, word):
    with pytest.raises(ms.MicroStepError, match=word):
        ms.score(models["base"], text, **options)


def test_options_of_a_wrong_kind_or_of_another_strategy_are_refused(models):
    base = models["base"]
    for ask, word in (
        (lambda: ms.generate(base, TEXT, confidence="x"), "a number"),
        (lambda: ms.generate(base, TEXT, max_new_tokens=2.5), "a whole number"),
        (lambda: ms.attribute(base, TEXT, at=2.5), "a whole number or None"),
        (lambda: ms.segment(base, TEXT, max_length="4"), "a whole number"),
        (lambda: ms.segment(base, TEXT, history_method="x"), "strided"),
        (lambda: ms.segment(base, TEXT, history_method="banded"), "limited_history"),
        (lambda: ms.segment(base, TEXT, layers=[1]), "attention strategies"),
        (lambda: ms.segment(base, TEXT, "attention_mass", layers=[0.5]), "whole numbers"),
        (lambda: ms.compare(base, base, TEXT, seed=1), "new_tokens"),
    ):
        with pytest.raises(ms.MicroStepError, match=word):
            ask()


def test_wrong_strategies_seeds_and_lengths_are_refused(models):
    base = models["base"]
    for strategy, max_length, word in (
        (None, 4, "one strategy"),
        ([], 4, "one strategy"),
        ([["entropy"]], 4, "one strategy"),
        ("word", 10**30, "whole number"),
    ):
        with pytest.raises(ms.MicroStepError, match=word):
            ms.segment(base, TEXT, strategy, max_length=max_length)
    with pytest.raises(ms.MicroStepError, match="target_segments"):
        ms.solve(base, TEXT, target_segments=0)
    with pytest.raises(ms.MicroStepError, match="continuation"):
        ms.compare(base, base, TEXT, new_tokens=-1)
    with pytest.raises(ms.MicroStepError, match="seed"):
        ms.compare(base, base, TEXT, new_tokens=1, temperature=1, seed=2**70)
