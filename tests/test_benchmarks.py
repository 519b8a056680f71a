"""The benchmarks run and give their columns. How long anything takes is not for a test to say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.methods import METHODS, excerpt
from benchmarks.score import bundled_text, check_methods, timed
from model.errors import MicroStepError
from model.loading import ModelSpec, load
from tests.tiny import save_tiny

ROOT = Path(__file__).resolve().parent.parent


def command(*options):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "score", *options], cwd=ROOT, capture_output=True, text=True, timeout=240
    )


def test_the_command_gives_a_table_and_json(tmp_path):
    model, out = save_tiny(tmp_path / "tiny", "llama"), tmp_path / "out.json"
    options = ["--tokens", "40", "--repeats", "2", "--method", "ours", "--out", str(out)]
    done = command("--model", str(model), *options)
    assert done.returncode == 0, done.stderr
    assert "x bare" in done.stdout and "peak MB" in done.stdout
    (report,) = json.loads(out.read_text())
    assert report["logits_bytes"] == 4 * report["tokens"] * report["vocabulary"]
    assert [row["method"] for row in report["rows"]] == ["bare", "ours"]
    for row in report["rows"]:
        assert row["note"] is None and row["peak_bytes"] >= 0
        assert len(row["seconds"]["each"]) == 2
        assert row["ratio"]["min"] <= row["ratio"]["median"] <= row["ratio"]["max"]
    assert report["rows"][0]["ratio"]["each"] == [1.0, 1.0]


def test_every_method_runs_or_says_why_not(tmp_path):
    model = save_tiny(tmp_path / "tiny", "gemma3_text", add_bos=True)
    report = timed(str(model), "float32", bundled_text(50), 50, 1, check_methods(None))
    rows = {row["method"]: row for row in report["rows"]}
    assert list(rows) == [method.name for method in METHODS]
    for name, row in rows.items():
        assert (row["seconds"] is None) == (row["note"] is not None), row
        assert row["note"] is None or (name == "minicons" and "not installed" in row["note"])


@pytest.mark.parametrize("add_bos", [False, True])
def test_all_methods_read_the_same_tokens(tmp_path, add_bos):
    loaded = load(ModelSpec(str(save_tiny(tmp_path / "tiny", add_bos=add_bos)), device="cpu"))
    piece = excerpt(loaded, bundled_text(64), 64)
    assert 60 <= len(piece.ids) <= 64 and piece.fed.shape == (1, len(piece.ids))
    whole = loaded.tokenizer(piece.text)["input_ids"]
    assert whole == ([] if piece.bos is None else [piece.bos]) + piece.ids.tolist()
    assert (piece.bos is not None) == add_bos


def test_the_bundled_text_is_long_enough_and_always_the_same():
    assert len(bundled_text(1000)) >= 8000 and bundled_text(1000) == bundled_text(1000)


def test_a_wrong_name_is_one_line(tmp_path):
    with pytest.raises(MicroStepError, match="bare, discarded, ours, naive, minicons"):
        check_methods(["faster"])
    done = command("--method", "faster", "--out", str(tmp_path / "x.json"))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "faster" in done.stderr
    assert not list(tmp_path.iterdir())
    assert command("--out", str(tmp_path / "x.csv")).returncode == 1
