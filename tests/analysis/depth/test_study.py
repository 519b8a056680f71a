"""The study of depth: its numbers are those of its documents, and the command writes all of them."""

import shlex

import numpy as np
import pandas as pd
import pytest

from analysis.depth.study import by_layer, in_bins, study_depth, summary
from analysis.depth.study_cli import first_characters
from model.errors import TextError
from model.hub.loading import ModelSpec, load
from model.text.document import Document, Message
from tests.support.command import call, repeat
from tests.support.tiny import CORPUS

DOCUMENTS = [Document.plain(text) for text in CORPUS]


@pytest.fixture(scope="module")
def study(models):
    specs = tuple((key, ModelSpec(str(models[name]))) for key, name in (("A", "base"), ("B", "sft")))
    return study_depth(specs, DOCUMENTS, False, load)


def test_a_study_counts_every_document_once(study):
    a, b = study.sides
    assert study.documents == a.units.count == len(DOCUMENTS) and a.count == b.count
    table = by_layer(study, "nats")
    assert list(table[table["model"] == "A"]["layer"]) == [0, 1, 2, 3]
    for key, side in (("A", a), ("B", b)):
        own = table[table["model"] == key]
        np.testing.assert_allclose(own["kl"], side.layers.kl.mean(1), rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(own["repeats"], (side.layers.top_id == side.before).mean(1), atol=1e-9)
        uniform = np.log(400) - side.layers.entropy[-1]
        np.testing.assert_allclose(own["worse_than_uniform"], (side.layers.kl > uniform).mean(1), atol=1e-9)
        assert own["decided_so_far"].iloc[-1] == pytest.approx(1)
    found = summary(study).set_index("model")
    assert found.loc["B − A", "decided"] == pytest.approx(found.loc["B", "decided"] - found.loc["A", "decided"])
    bins = in_bins(study, "entropy", "nats")
    assert (bins.groupby("model")["entropy"].is_monotonic_increasing).all()
    assert (
        (bins["decided_tenth"] <= bins["decided_half"]) & (bins["decided_half"] <= bins["decided_nine_tenths"])
    ).all()


def test_the_command_writes_what_its_text_reproduces(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("analysis.export.chrome", lambda: None)  # a picture would take seconds
    data = tmp_path / "texts.jsonl"
    pd.DataFrame({"story": CORPUS[:4]}).to_json(data, orient="records", lines=True)
    words = ["depth-study", "--a", models["base"], "--b", models["other"], "--data", data, "--column", "story"]
    assert call(monkeypatch, *words, "--characters", 60, "--out", tmp_path / "one") == 0
    text = (tmp_path / "one" / "depth.md").read_text()
    assert "4 documents" in capsys.readouterr().out and "| model |" in text
    monkeypatch.chdir(tmp_path)
    command = next(line for line in text.splitlines() if line.startswith("micro-step depth-study"))
    assert shlex.split(command)[-1] == "one"
    assert repeat(monkeypatch, command.replace("--out one", "--out two")) == 0
    for name in ("depth-layers.csv", "depth-summary.csv", "depth-entropy.csv", "depth.html"):
        assert (tmp_path / "one" / name).stat().st_size
    for name in ("depth-layers.csv", "depth-summary.csv", "depth-entropy.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_documents_are_cut_and_none_is_an_error(models):
    chat = Document((Message("user", "abcdef"), Message("assistant", "ghij"), Message("user", "k")))
    assert [message.content for message in first_characters(chat, 8).messages] == ["abcdef", "gh"]
    specs = (("A", ModelSpec(str(models["base"]))), ("B", ModelSpec(str(models["sft"]))))
    with pytest.raises(TextError):
        study_depth(specs, [Document.plain("a")], False, load)
