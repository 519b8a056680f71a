"""The commands generate and generation-figure: what they write equals what Python computes, mistakes end in a line."""

import zipfile

import pandas as pd
import pytest

from analysis.generation.cli import FIGURE_NAMES, SWEEPS
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Decoding
from analysis.generation.tables import answer_table, is_timed
from model.hub.loading import ModelSpec, load
from model.scoring.scores import Sampling
from model.text.document import TextInput
from tests.support.command import call, repeat

pytestmark = pytest.mark.slow

PROMPT = "the cat sat on <b>the</b> mat"
SHORT = ("--max-new-tokens", 12)


def untimed(table):
    return table[[name for name in table if not is_timed(name)]]


def test_a_row_a_token_equals_python(models, tmp_path, monkeypatch, capsys):
    out = tmp_path / "x.parquet"
    words = ["generate", "--model", models["base"], "--prompt", PROMPT, "--confidence", 0.01, "--merged", *SHORT]
    words += ["--temperature", 0.7, "--top-p", 0.9, "--seed", 4, "--max-segment-length", 3, "--rule", "product"]
    assert call(monkeypatch, *words, "--out", out) == 0
    how = Decoding("product", 0.01, 3, False, 12, Sampling(0.7, 0.9, 4))
    request = GenerationRequest(ModelSpec(str(models["base"])), TextInput.plain(PROMPT), how=how)
    pd.testing.assert_frame_equal(untimed(pd.read_parquet(out)), untimed(answer_table(request.run(load))))
    said = capsys.readouterr().err
    assert "untrained" in said and "12 tokens in" in said and list(tmp_path.iterdir()) == [out]


def test_lossless_is_the_base_and_a_table_is_shown(models, monkeypatch, capsys):
    words = ["generate", "--model", models["sft"], "--text", PROMPT, "--chat", "--lossless", *SHORT]
    assert call(monkeypatch, *words) == 0
    assert "the answer is the base's own, token for token" in " ".join(capsys.readouterr().out.split())


def test_taus_give_a_row_each(models, tmp_path, monkeypatch):
    out = tmp_path / "x.csv"
    words = ["generate", "--model", models["base"], "--prompt", PROMPT, "--confidence", "1.01 0", "--merged", *SHORT]
    assert call(monkeypatch, *words, "--out", out) == 0
    table = pd.read_csv(out)
    assert table["tau"].tolist() == [0, 1.01] and table["agreement"].iloc[1] == 1


@pytest.mark.parametrize("name", FIGURE_NAMES)
def test_every_figure_has_a_bundle_whose_command_makes_its_data_again(models, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.export.chrome", lambda: None)
    words = ["generate", "--figure", name, "--model", models["base"], "--prompt", PROMPT, *SHORT]
    words += ["--confidence", ".01 1.01" if name in SWEEPS else 0.01, "--merged", "--over", "passes", "--pinned", 2]
    assert call(monkeypatch, *words, "--out", "x.zip") == 0
    with zipfile.ZipFile("x.zip") as archive:
        archive.extractall()
        command = archive.read("README.txt").decode().strip().splitlines()[-1]
    first = pd.read_parquet("figure.parquet")
    assert repeat(monkeypatch, command.replace("figure.csv", "again.parquet")) == 0
    pd.testing.assert_frame_equal(untimed(first), untimed(pd.read_parquet("again.parquet")))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rule", "hope"), "no stopping rule"),
        (("--max-segment-length", "9"), "1 to 8 tokens"),
        (("--confidence", "a few"), "numbers"),
        (("--top-p", "0"), "top-p"),
        (("--max-new-tokens", "600"), "context"),
    ],
)
def test_mistakes_end_with_one_line(models, tmp_path, monkeypatch, capsys, words, said):
    out = tmp_path / "x.csv"
    assert call(monkeypatch, "generate", "--model", models["base"], "--prompt", PROMPT, *words, "--out", out) != 0
    err = capsys.readouterr().err.strip()
    assert said in err.splitlines()[-1] and "Traceback" not in err and not out.exists()


def test_an_unknown_figure_and_an_empty_prompt(models, tmp_path, monkeypatch, capsys):
    base = ["--model", models["base"], "--out", tmp_path / "x.csv"]
    assert call(monkeypatch, "generate", "--figure", "pie", "--prompt", "x", *base) != 0
    assert "answer, film, timeline" in capsys.readouterr().err
    assert call(monkeypatch, "generate", "--prompt", "", *base) != 0
    assert "no prompt" in capsys.readouterr().err
