"""The commands segment and solve: what they write equals what Python computes, mistakes end with one line."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from analysis.options import split_strategies
from analysis.segmentation.options import StrategiesOptions
from analysis.segmentation.single import gather, segment_table
from analysis.segmentation.strategy import Segmenter, Strategy
from analysis.uncertainty.scoring import score_document
from analysis.uncertainty.tables import token_table
from model.hub.loading import ModelSpec, load
from model.segmentation.segment import RULES, SegmentInputs, segment
from model.text.document import Document, Message, TextInput
from tests.support.command import call

pytestmark = pytest.mark.slow

TEXT = 'the cat "sat", <b>on</b>\nthe mat 🦆 12 + 30 = 42; the dog sleeps on and on'


@pytest.mark.parametrize(
    ("rule", "name"),
    [(rule, "other") for rule in RULES if rule != "refined"] + [(rule, "base") for rule in ("entropy", "router")],
)
def test_every_strategy_runs_and_equals_python(models, tmp_path, monkeypatch, rule, name):
    out = tmp_path / "x.parquet"
    words = ["segment", "--model", models[name], "--text", TEXT, "--strategy", rule, "--max-length", 3, "--out", out]
    assert call(monkeypatch, *words) == 0
    found, loaded = pd.read_parquet(out), load(ModelSpec(str(models[name])))
    scored = token_table(score_document(loaded, TextInput.plain(TEXT)))
    pd.testing.assert_frame_equal(found[scored.columns], scored)
    assert list(found.columns[-3:]) == ["value", "starts_segment", "segment"]
    ready = gather(loaded, TextInput.plain(TEXT), Segmenter(Strategy.of(rule), 3))
    alone = segment(rule, ready.inputs, 3)
    assert found["starts_segment"].tolist() == alone.starts.tolist()
    assert found["segment"].tolist() == alone.segment.tolist()
    np.testing.assert_array_equal(found["value"], alone.value.astype(float))
    assert found.groupby("segment").size().max() <= 3 and list(tmp_path.iterdir()) == [out]


def test_strategies_are_divided_by_commas_and_blanks():
    words = ["entropy:threshold=1.2,word", "limited_history : threshold = 1.5, window=32 fixed"]
    expected = ["entropy:threshold=1.2", "word", "limited_history:threshold=1.5,window=32", "fixed"]
    assert split_strategies(words) == expected
    assert [str(each).split(":")[0] for each in StrategiesOptions(["word,entropy"]).read()] == ["word", "entropy"]


def test_settings_reach_the_rule(models, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x.csv"
    base = ["segment", "--model", models["base"], "--text", TEXT, "--out", out]
    words = ["--strategy", "entropy_combined", "--set", "threshold=2.5", "--set", "rise=-0.5"]
    assert call(monkeypatch, *base, *words) == 0
    table = pd.read_csv(out)
    inputs = SegmentInputs(entropy=table["entropy"].to_numpy())
    expected = segment("entropy_combined", inputs, threshold=2.5, rise=-0.5)
    assert table["starts_segment"].tolist() == expected.starts.tolist() and 1 < expected.starts.sum() < len(table)
    assert call(monkeypatch, *base, "--strategy", "attention_mass", "--layer", 0, "--layer", 2, "--head", 1) == 0
    assert "layers 0, 2, heads 1" in capsys.readouterr().err
    assert call(monkeypatch, *base, "--strategy", "limited_history", "--set", "window=5") == 0
    assert "exactly the last 5 tokens" in capsys.readouterr().err


def test_values_are_in_the_unit_and_parameters_in_nats(models, tmp_path, monkeypatch):
    out = tmp_path / "x.parquet"
    base = ["segment", "--model", models["base"], "--text", TEXT, "--strategy", "entropy", "--out", out]
    tables = []
    for unit in ("nats", "bits"):
        assert call(monkeypatch, *base, "--set", "threshold=3", "--unit", unit) == 0
        tables.append(pd.read_parquet(out))
    nats, bits = tables
    assert nats["starts_segment"].tolist() == bits["starts_segment"].tolist()
    np.testing.assert_allclose(bits["value"], nats["value"] / np.log(2))
    np.testing.assert_allclose(bits["value"], bits["entropy"], rtol=1e-6)


def test_a_history_is_drawn_with_the_window_of_its_strategy(models, tmp_path, monkeypatch):
    out = tmp_path / "x.csv"
    words = ["segment", "--figure", "history", "--model", models["base"], "--text", TEXT, "--out", out, "--strategy"]
    assert call(monkeypatch, *words, "entropy") == 1
    tables = []
    for more in (["limited_history:window=5"], ["entropy", "--window", 5]):
        assert call(monkeypatch, *words, *more) == 0
        tables.append(pd.read_csv(out))
    pd.testing.assert_frame_equal(*tables)


def test_without_out_a_table_is_shown(models, monkeypatch, capsys):
    assert call(monkeypatch, "segment", "--model", models["base"], "--text", TEXT, "--strategy", "word") == 0
    printed = capsys.readouterr().out
    assert "starts_segment" in printed and "segments by Words" in printed


def test_a_chat_keeps_its_prompt_apart(models, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x.parquet"
    words = ["segment", "--model", models["sft"], "--text", "the cat sat", "--answer", "on and on, the dog sleeps"]
    words += ["--strategy", "confidence", "--set", "tau=0", "--out", out]
    assert call(monkeypatch, *words, "--chat") == 0
    assert "the prompt is not merged" in capsys.readouterr().err
    table = pd.read_parquet(out)
    assert table["starts_segment"][table["role"] != "assistant"].all()
    assert not table["starts_segment"][table["role"] == "assistant"].all()
    assert call(monkeypatch, *words, "--chat", "--no-prompt-apart") == 0
    assert not pd.read_parquet(out)["starts_segment"][table["role"] != "assistant"].all()


def test_solve_gives_a_parameter_that_segment_takes(models, tmp_path, monkeypatch, capsys):
    out, cut = tmp_path / "s.json", tmp_path / "c.parquet"
    base = ["--model", models["base"], "--text", TEXT]
    for rule in ("entropy", "entropy_budget", "attention_sparsity"):
        assert call(monkeypatch, "solve", *base, "--strategy", rule, "--target-length", 2, "--out", out) == 0
        rows = json.loads(out.read_text("utf-8"))
        (solution,) = [row for row in rows if row["solution"]]
        assert solution["parameter"] == RULES[rule].solves and len(rows) > 3
        setting = f"{solution['parameter']}={solution['value']}"
        assert setting.rstrip("0").rstrip(".") in capsys.readouterr().err
        assert call(monkeypatch, "segment", *base, "--strategy", rule, "--set", setting, "--out", cut) == 0
        table = pd.read_parquet(cut)
        assert len(table) / table["starts_segment"].sum() == pytest.approx(solution["mean_length"], abs=1e-12)
    assert call(monkeypatch, "solve", *base, "--strategy", "entropy", "--target-segments", 20) == 0
    printed = capsys.readouterr().out
    assert "mean_length" in printed and "entropy threshold=" in printed and "at most 4 tokens" in printed


def test_mistakes_end_with_one_line(models, monkeypatch, capsys, tmp_path):
    segmenting = ["segment", "--model", models["base"], "--text", TEXT, "--strategy"]
    solving = ["solve", "--model", models["base"], "--text", TEXT, "--strategy"]
    wrong = [
        ([*segmenting[:-1]], "strategy"),
        ([*segmenting, "entrpy"], "did you mean 'entropy'"),
        ([*segmenting, "refined"], "trained micro_step model"),
        ([*segmenting, "entropy", "--set", "treshold=1"], "did you mean 'threshold'"),
        ([*segmenting, "entropy", "--set", "threshold"], "parameter=number"),
        ([*segmenting, "entropy", "--set", "threshold=99"], "from 0 to 16, got 99"),
        ([*segmenting, "entropy", "--set", "threshold=1", "--set", "threshold=2"], "set twice"),
        ([*segmenting, "entropy", "--max-length", 0], "max-length"),
        ([*segmenting, "attention_mass", "--layer", 7], "layer must be from 0 to 2"),
        ([*segmenting, "router", "--set", "layer=9"], "from 0 to 3"),
        ([*segmenting, "entropy", "--out", tmp_path / "x.docx"], "csv, parquet, json"),
        ([*solving, "entropy"], "either"),
        ([*solving, "entropy", "--target-length", 9], "from 1 to .* 4, got 9"),
        ([*solving, "word", "--target-length", 2], "no parameter"),
        ([*solving, "entropy", "--target-length", 2, "--set", "threshold=1"], "do not set it"),
        ([*solving, "entropy", "--target-segments", 1], "1 segment .* at least 14 of at most 4 tokens"),
        ([*solving, "entropy", "--target-segments", 99_999], "99,999 segments .* at most 50 segments"),
        ([*solving, "entropy", "--target-length", 2, "--head", 0], "attention_mass"),
        ([*segmenting, "router", "--layer", 1], "router:layer=2"),
        ([*segmenting, "entropy", "--history-stride", 3], "limited_history"),
    ]
    for words, said in wrong:
        assert call(monkeypatch, *words) != 0
        error = capsys.readouterr().err.strip().splitlines()
        assert error[-1].startswith("Error:"), words
        assert re.search(said, error[-1]), (words, error)
    assert not list(tmp_path.iterdir())


def test_gathering_leaves_out_what_the_rule_does_not_need(models):
    loaded = load(ModelSpec(str(models["base"])))
    ready = gather(loaded, TextInput.plain(TEXT), Segmenter(Strategy.of("entropy")))
    assert ready.inputs.router is None and ready.inputs.attention_mass is None and ready.inputs.prompt is None
    table = segment_table(ready.scored, segment("entropy", ready.inputs))
    assert table["segment"].is_monotonic_increasing
    chat = Document((Message("user", "the cat"),))
    assert (
        gather(
            load(ModelSpec(str(models["sft"]))), TextInput(chat, chat=True), Segmenter(Strategy.of("entropy"))
        ).inputs.prompt
        is None
    )
