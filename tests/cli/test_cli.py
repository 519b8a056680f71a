"""The command line: what it writes equals what Python computes, and bundles make themselves again."""

import io
import json
import zipfile

import numpy as np
import pandas as pd
import pytest

from analysis.export import bundle, manifest
from analysis.uncertainty.figures import FIGURES, PAIRED, draw
from analysis.uncertainty.request import ComparisonQuery
from analysis.uncertainty.scoring import score_document
from analysis.uncertainty.tables import cell_table, token_table
from analysis.view import View
from model.hub.loading import ModelSpec, load
from model.scoring.scores import Sampling
from model.text.document import Document, Message, TextInput
from tests.support.command import call, repeat

TEXT = 'the cat "sat", <b>on</b>\nthe mat 🦆 12 + 30 = 42; =1+1'


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json"])
def test_score_writes_the_table(models, tmp_path, monkeypatch, suffix):
    out = tmp_path / f"x.{suffix}"
    assert call(monkeypatch, "score", "--model", models["other"], "--text", TEXT, "--out", out) == 0
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[suffix]
    found, expected = (
        read(out),
        token_table(score_document(load(ModelSpec(str(models["other"]))), TextInput.plain(TEXT))),
    )
    assert list(found.columns) == list(expected.columns) and list(found["token"]) == list(expected["token"])
    np.testing.assert_allclose(found["entropy"], expected["entropy"], rtol=1e-6)
    assert list(tmp_path.iterdir()) == [out]


def test_score_shows_a_table_and_reads_files(models, tmp_path, monkeypatch, capsys):
    path = tmp_path / "t.txt"
    path.write_text(TEXT, "utf-8")
    assert call(monkeypatch, "score", "--model", models["base"], "--text-file", path, "--unit", "bits") == 0
    printed = capsys.readouterr().out
    assert "surprisal" in printed and " bits" in printed and "¶" in printed
    assert call(monkeypatch, "score", "--model", models["base"], "--text", "cat", "--history", 3) == 0
    assert "exactly the last 3 tokens" in capsys.readouterr().err


def test_compare_states_the_finding_and_writes_cells(models, tmp_path, monkeypatch, capsys):
    cells, out = tmp_path / "cells.parquet", tmp_path / "summary.json"
    words = ["compare", "--a", models["base"], "--b", models["other"], "--text", TEXT]
    assert call(monkeypatch, *words, "--cells", cells) == 0
    assert "B is" in (printed := capsys.readouterr().out) or "No clear difference" in printed
    assert call(monkeypatch, *words, "--answer", "It sat.", "--out", out) == 0
    assert {row["role"] for row in json.loads(out.read_text())} == {"all", "user", "assistant"}
    request = ComparisonQuery(ModelSpec(str(models["base"])), ModelSpec(str(models["other"])), TextInput.plain(TEXT))
    pd.testing.assert_frame_equal(pd.read_parquet(cells), cell_table(request.run(load)))


REQUESTS = {
    "chat": {
        "text": TextInput(Document((Message("user", "the cat 'sat'?"), Message("assistant", "It sat."))), chat=True)
    },
    "own": {"new_tokens": 9, "sampling": Sampling(0.8, 0.9, 5)},
    "bos": {"text": TextInput(Document.plain(TEXT), force_bos=True)},
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_bundle_makes_itself_again(models, tmp_path, monkeypatch, kind):
    specs = {"a": ModelSpec(str(models["base"])), "b": ModelSpec(str(models["sft"]))}
    request = ComparisonQuery(**{**specs, "text": TextInput.plain(TEXT), **REQUESTS[kind]})
    comparison = request.run(load)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.export.chrome", lambda: None)  # what static images need is tested in the browser
    for name in FIGURES:
        if comparison.cells is None and name in PAIRED:
            continue
        view = View("surprisal", "nats", "dark", pinned=3)
        content = bundle(draw(name, comparison, view), request.origin(comparison, view))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(tmp_path / name)
        told = json.loads((tmp_path / name / "manifest.json").read_text("utf-8"))
        assert (
            told["models"]["a"]["tokenizer_hash"]
            and told["packages"]["torch"]
            and told["command"] in (tmp_path / name / "README.txt").read_text("utf-8")
        )
        before = pd.read_parquet(tmp_path / name / "figure.parquet")
        monkeypatch.chdir(tmp_path / name)
        assert repeat(monkeypatch, told["command"]) == 0
        after = pd.read_csv("figure.csv", keep_default_na=True)
        assert len(after) == len(before)
        for column in before.select_dtypes("number"):
            np.testing.assert_allclose(after[column], before[column].astype(float), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", ["a", "ab", TEXT, "the cat " * 200, "\x00\x1b[31m<script>\u202e"])
def test_every_figure_draws_on_every_text(models, text):
    a, b = (ModelSpec(str(models[key])) for key in ("base", "other"))
    request = ComparisonQuery(a, b, TextInput.plain(text))
    comparison = request.run(load)
    for name in FIGURES:
        for view in (View(), View("confidence", "nats", "dark", pinned=0)):
            drawn = draw(name, comparison, view)
            assert "<script>" not in drawn.figure.to_json()
            assert manifest(drawn, request.origin(comparison, view))["rows"] == len(drawn.data)


def test_wrong_options_end_with_one_line(models, monkeypatch, capsys, tmp_path):
    score = ["score", "--model", models["base"]]
    wrong = [
        (["score", "--text", "x"], "model"),
        ([*score], "--text"),
        ([*score, "--text", "x", "--text-file", "y"], "either --text"),
        ([*score, "--text", "x", "--out", tmp_path / "x.docx"], "csv, parquet, json"),
        ([*score, "--text", "x", "--theme", "dark"], "--figure"),
        ([*score, "--text", "x", "--history-stride", "4"], "--history"),
        (["compare", "--a", "x", "--b", "y", "--text", "z", "--seed", "0"], "--continue"),
        (["micro-attention", "--model", "x", "--text", "z", "--layer", "0"], "--figure"),
        (["compare", "--figure", "pie", "--a", "x", "--b", "y", "--text", "z", "--out", "x.csv"], "strip, line"),
    ]
    for words, said in wrong:
        assert call(monkeypatch, *words) != 0
        error = capsys.readouterr().err.strip().splitlines()
        assert error[-1].startswith("Error:") and said in error[-1], words
    assert not list(tmp_path.iterdir())
