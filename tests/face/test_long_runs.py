"""The functions of the face that write a folder: their tables are those that the commands make of the same folder."""

from __future__ import annotations

import pandas as pd
import pytest

import micro_step as ms
from analysis.export import read_csv
from tests.support.command import call
from tests.support.evaluations import write_local
from tests.support.training import make_prepared, recipe

pytestmark = pytest.mark.slow

TEXTS = ("The quick brown fox jumps.", "Over the lazy dog, it goes on.", "Twice the fox, and the dog sleeps again.")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("analysis.export.chrome", lambda: None)  # a picture would take seconds


def check_figures(result, folder):
    for name in result.figures:
        assert result.export(folder / f"{name}.html", name, theme="dark").stat().st_size > 1000
    assert result.export(folder / "bundle.zip").stat().st_size > 1000
    assert 0 < len(repr(result)) < 1000
    assert len(repr(result.raw)) < 2000


def test_a_corpus_is_scored_and_reported_on(models, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))
    store = tmp_path / "store"
    result = ms.score_corpus(models["base"], tmp_path / "texts.txt", store, documents="line")
    assert (result.raw.documents, result.raw.complete) == (3, True)
    assert call(monkeypatch, "corpus", "report", store, "--out", tmp_path / "report.parquet") == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet(result.export(tmp_path / "own.parquet")), pd.read_parquet(tmp_path / "report.parquet")
    )
    check_figures(result, tmp_path)


def test_a_recipe_is_trained(models, tmp_path, monkeypatch):
    prepared = make_prepared(tmp_path / "data", models["sft"], examples=16)
    run = tmp_path / "run"
    result = ms.train(recipe(models["sft"], steps=2), out=run, prepared=prepared.path, device="cpu")
    assert result.raw.state == "finished"
    assert call(monkeypatch, "runs", run, "--table", "curves", "--out", tmp_path / "log.parquet") == 0
    pd.testing.assert_frame_equal(
        pd.read_parquet(result.export(tmp_path / "own.parquet")), pd.read_parquet(tmp_path / "log.parquet")
    )
    check_figures(result, tmp_path)
    last = result.raw.look.checkpoints[-1].path
    assert str(last) in result.summary
    assert ms.load(last).facts.micro_step is not None


def test_a_model_is_evaluated(models, tmp_path, monkeypatch):
    (tmp_path / "local").mkdir()
    local, out = write_local(tmp_path / "local"), tmp_path / "out"
    options = {"out": out, "local": local, "max_new_tokens": 8}
    result = ms.evaluate(models["sft"], ["arc_challenge:3", "gsm8k_cot_zeroshot:2"], **options)
    assert result.figures == ("report", "score_arc_challenge", "score_gsm8k_cot_zeroshot")
    words = ("report", out, "--out", tmp_path / "table.csv")
    assert call(monkeypatch, "eval", *words) == 0
    own, written = read_csv(result.export(tmp_path / "own.csv")), read_csv(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(own, written)
    check_figures(result, tmp_path)
    again = ms.evaluate(models["sft"], "arc_challenge:3,gsm8k_cot_zeroshot:2", **options)
    pd.testing.assert_frame_equal(again.table, result.table)
