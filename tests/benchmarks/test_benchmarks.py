"""The benchmarks run and give their columns. How long anything takes is not for a test to say."""

import json
import os
import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from typer.testing import CliRunner

from benchmarks import train_step
from benchmarks.app import _row as app_row
from benchmarks.options import SegmentTimingOptions, TrainStepOptions
from benchmarks.report import show
from benchmarks.score import check_scorers, prepare
from benchmarks.scorers import SCORERS, excerpt
from benchmarks.segment import measure
from benchmarks.texts import bundled_text
from benchmarks.timing import in_fresh_process, peak, timed
from benchmarks.train_step import STEPS, _ready, random_starts
from micro_step import cli
from model.errors import ExportError, MicroStepError
from model.hub.loading import ModelSpec, load
from tests.support.tiny import save_tiny

pytestmark = pytest.mark.slow
SCORE = ["bench", "score"]


def test_the_command_gives_a_table_and_json(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.timing.in_fresh_process", lambda function, *given: function(*given))
    model, out = save_tiny(tmp_path / "tiny", "llama"), tmp_path / "out.json"
    options = ["--tokens", "40", "--repeats", "2", "--method", "ours", "--out", out]
    done = CliRunner().invoke(cli.command(SCORE), [*SCORE, "--model", *map(str, [model, *options])])
    assert done.exit_code == 0 and "ratio" in done.stdout and "peak MB" in done.stdout
    (report,) = json.loads(out.read_text())
    assert report["logits_bytes"] == 4 * report["tokens"] * report["vocabulary"]
    assert [row["method"] for row in report["rows"]] == ["bare", "ours"]
    for row in report["rows"]:
        assert row["note"] is None and row["peak_bytes"] >= 0
        assert len(row["seconds"]["each"]) == 2
        assert row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
    assert report["rows"][0]["ratio"]["each"] == [1.0, 1.0]


def test_a_report_is_shown_as_facts_and_tables(capsys):
    rows = [
        {"method": "ours", "seconds": {"median": 1.5, "min": 1.0, "max": 2.0}, "peak_bytes": 2_000_000, "note": None}
    ]
    show({"benchmark": "x", "sent_bytes": {"map": 1_500_000}, "lengths": [{"tokens": 4096, "rows": rows}], "empty": []})
    *facts, within, titles, line = [text for text in capsys.readouterr().out.splitlines() if text.strip()]
    assert [fact.split() for fact in facts] == [["benchmark", "x"], ["sent", "MB", "map", "1.50"]]
    assert within.split() == ["tokens", "4,096"]
    assert titles.split() == ["method", "seconds", "peak", "MB"]
    assert line.split() == ["ours", "1.50", "(1.00..2.00)", "2.00"]


def test_a_fresh_process_is_another_one_and_gives_what_the_function_gives():
    assert in_fresh_process(os.getpid) != os.getpid()


def test_every_method_runs_or_says_why_not(tmp_path):
    model = save_tiny(tmp_path / "tiny", "gemma3_text", add_bos=True)
    report = timed(prepare, (str(model), "float32", "cpu", bundled_text(50), 50, check_scorers(None)), 1)
    rows = {row["method"]: row for row in report["rows"]}
    assert list(rows) == [scorer.name for scorer in SCORERS]
    for name, row in rows.items():
        assert (row["seconds"] is None) == (row["note"] is not None), row
        assert row["note"] is None or (name == "minicons" and "not installed" in row["note"])


@pytest.mark.parametrize("add_bos", [False, True])
def test_all_methods_read_the_same_tokens(tmp_path, add_bos):
    loaded = load(ModelSpec(str(save_tiny(tmp_path / "tiny", add_bos=add_bos)), device="cpu"))
    piece = excerpt(loaded, bundled_text(64), 64)
    assert 60 <= len(piece.ids) <= 64 and piece.fed.shape == (1, len(piece.ids))
    whole = loaded.tokenizer(piece.text)["input_ids"]
    assert whole == [*piece.prefix, *piece.ids.tolist()]
    assert bool(piece.prefix) == add_bos


def test_the_bundled_text_is_long_enough_and_always_the_same():
    assert len(bundled_text(1000)) >= 8000 and bundled_text(1000) == bundled_text(1000)


def test_a_wrong_name_leaves_no_file(tmp_path):
    with pytest.raises(MicroStepError, match="bare, discarded, ours, naive, minicons"):
        check_scorers(["faster"])
    for options in (["--method", "faster", "--out", tmp_path / "x.json"], ["--out", tmp_path / "x.csv"]):
        done = CliRunner().invoke(cli.command(SCORE), [*SCORE, *map(str, options)])
        assert isinstance(done.exception, MicroStepError)
    assert isinstance(done.exception, ExportError) and not list(tmp_path.iterdir())


def test_every_rule_of_scores_is_measured_beside_a_loop_with_the_same_boundaries():
    report = measure(SegmentTimingOptions(tokens=3000, solved_tokens=1000, repeats=1), lambda message, fraction: None)
    assert len(report["rows"]) == 12 and all(row["loop_seconds"] > 0 for row in report["rows"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("decode") / "tiny", "llama", chat=True))


def test_a_training_step_is_measured(folder):
    options = TrainStepOptions(folder, rows=2, tokens=24, precision="bfloat16", repeats=2)
    report = timed(train_step.prepare, (options,), options.repeats)
    assert [row["method"] for row in report["rows"]] == [step.name for step in STEPS]
    assert report["rows"][0]["ratio"]["each"] == [1.0, 1.0] and 1 <= report["mean_length"] <= 4
    assert peak(train_step.prepare, (replace(options, precision="float32"),), "micro_step") >= 0


def test_all_training_steps_take_the_same_loss_of_single_tokens(folder):
    model, batch = _ready(TrainStepOptions(folder, rows=2, tokens=24, length=1.0))
    assert batch.starts.all()
    model.config.stop_weight = 0.0
    losses = [step.loss(model, batch).item() for step in STEPS]
    assert losses == pytest.approx([losses[0]] * len(STEPS), rel=1e-5)


@pytest.mark.parametrize("mean", [1, 2, 3.5, 4])
def test_random_segments_have_the_mean_length(mean):
    starts = random_starts(20001, mean, random.Random(0))
    at = [i for i, start in enumerate(starts) if start]
    lengths = [b - a for a, b in pairwise(at)]
    assert starts[:2] == [True, True] and max(lengths) <= 4
    assert sum(lengths[1:]) / len(lengths[1:]) == pytest.approx(mean, rel=0.03)


def test_the_first_minute_stands_beside_another_checkouts_round_by_round():
    here, there = [{"first_s": 1.0, "shift": 0.0}, {"first_s": 3.0, "shift": 0.1}], [{"first_s": 4.0}, {"first_s": 6.0}]
    row = app_row("uncertainty", "here", here, there)
    assert row["first_s"]["median"] == 2.0 and row["first_s_ratio"]["each"] == [0.25, 0.5]
    assert row["second_s"] is None and app_row("uncertainty", "there", there, there)["shift"] is None


def test_words_of_many_texts_equal_those_of_one(tmp_path):
    """minicons is not among the packages of the tests; `bench words` compares with it."""
    from benchmarks.options import WordsOptions
    from benchmarks.words import WORDS, measure, ours, stimuli

    loaded, texts = load(ModelSpec(str(save_tiny(tmp_path / "tiny")), device="cpu")), stimuli(5)
    together, alone = ours(loaded, texts, 4), [words for text in texts for words in ours(loaded, [text], 1)]
    assert [len(words) for words in together] == [WORDS] * 5
    np.testing.assert_allclose(together, alone, rtol=1e-3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("benchmarks.words.find_spec", lambda name: None)
        with pytest.raises(MicroStepError, match="minicons"):
            measure(WordsOptions(), lambda *_: None)
