"""The study of evenness and its commands: trained runs, their seeds, untrained modules; what is written and refused."""

import json
import shlex
import shutil
import zipfile

import numpy as np
import pandas as pd
import pytest

from analysis.attention.evenness.study import EvennessQuery, study
from analysis.attention.evenness.tables import read_study, shown, study_table, study_text
from analysis.attention.evenness.texts import cut_texts, read_texts
from analysis.attention.micro.cli import FIGURE_NAMES
from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.segments import TrainingSegments, model_of, training_of
from analysis.attention.micro.tables import weight_table
from analysis.segmentation.strategy import Strategy
from data.prepared import read_prepared
from model.errors import MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from model.text.document import TextInput
from tests.support.training import make_prepared, recipe
from tests.trainer.test_trainer import trained
from trainer.batches.dataset import training_rows

pytestmark = pytest.mark.slow

REFERENCES = ("untrained (sft)", "untrained (sft, drafting)")
TEXT = "the cat sat on <b>the</b> mat, and the dog sleeps on."


@pytest.fixture(scope="module")
def runs(models, tmp_path_factory):
    """Two seeds of one recipe, one run that learned to draft, and the prepared data of both."""
    root = tmp_path_factory.mktemp("runs")
    prepared = make_prepared(root / "made", models["sft"], examples=80)
    for seed in (0, 1):
        chosen = recipe(models["sft"], steps=2, seed=seed, name=f"short-{seed}")
        trained(chosen, prepared, root / f"short-{seed}")
    draft = recipe(models["sft"], "draft", steps=2, name="draft", segmentation={"max_length": 3})
    trained(draft, prepared, root / "draft")
    return root


def test_two_recipes_are_no_seeds_of_one(models, runs, tmp_path):
    """`x-1` with seed 1 and `x` with seed 0 used to be pooled by their names, whatever their recipes said."""
    named = {"short-1": "short-1", "short": "short-0"}
    for name, like in named.items():
        shutil.copytree(runs / like, tmp_path / name)
        said = (tmp_path / name / "recipe.yaml").read_text("utf-8").replace(f"name: {like}", f"name: {name}")
        (tmp_path / name / "recipe.yaml").write_text(said, "utf-8")
    specs = [ModelSpec(str(tmp_path / name)) for name in named]
    asked = EvennessQuery(read_texts("samples", limit=3), Strategy.of("fixed", {"k": 2}), untrained=False)
    alike = study(specs, asked, load)
    assert [row.seeds for row in alike.together] == [(1, 0)], "but for name and seed they are the same"
    said = (tmp_path / "short" / "recipe.yaml").read_text("utf-8")
    (tmp_path / "short" / "recipe.yaml").write_text(said + "weight_decay_of_another_recipe: 0.5\n", "utf-8")
    apart = study(specs, asked, load)
    assert not apart.together and [row.variant for row in apart.rows] == ["short", "short, 2"]
    assert [row.name for row in apart.shown] == list(named)


def test_prepared_rows_are_the_held_out_ones_cut_as_the_trainer_cuts(models, runs):
    texts = read_texts(str(runs / "made"))
    loaded = load(ModelSpec(str(models["sft"])))
    prepared = read_prepared(runs / "made")
    how = training_of(model_of(str(runs / "short-0")))
    found = cut_texts(loaded, texts, how.cut, 4)
    held = training_rows(prepared, recipe(models["sft"]).segmentation).held_out
    assert len(texts.documents) == 10 == len(held) == len(found.rows) and texts.chat
    for i, row in enumerate(found.rows):
        one = slice(*held.offsets[i : i + 2])
        np.testing.assert_array_equal(row.ids, held.ids[one])
        np.testing.assert_array_equal(row.starts, held.starts[one])
    other = cut_texts(load(ModelSpec(str(models["other"]))), texts, TrainingSegments(), 4)  # another tokenizer: by text
    assert len(other.rows) == 10 and other.rows[0].ids[0] == 1 and "no recipe says how" in other.cut


def test_runs_seeds_and_untrained_modules_side_by_side(models, runs):
    specs = [ModelSpec(str(runs / name)) for name in ("short-0", "short-1", "draft")]
    told = []
    found = study(specs, EvennessQuery(read_texts(str(runs / "made"))), load, told.append)
    assert [row.name for row in found.rows] == ["short-0", "short-1", "draft", *REFERENCES]
    assert told[-1] == 1 and told == sorted(told)
    assert [row.name for row in found.together] == ["short"] and found.together[0].seeds == (0, 1)
    both, first, second = found.together[0].sums, found.rows[0].sums, found.rows[1].sums
    assert both.effective.mean == pytest.approx((first.effective.mean + second.effective.mean) / 2)
    assert both.units.kind == "documents" and both.units.count == 10 and not found.rows[0].micro.untrained
    draft = found.rows[2]
    assert draft.cut.startswith("fixed(k 3)") and draft.micro.decoding == "lossless" and draft.sums.positions == 2
    untrained = [row for row in found.rows if row.micro.untrained]
    assert {row.micro.decoding for row in untrained} == {"merged", "lossless"}
    table = study_table(found)
    pooled = table[(table["level"] == "pooled") & (table["figure"] == "effective")].set_index("model")
    assert pooled.loc["short", "mean"] == both.effective.mean and pooled.loc["short", "seeds"] == "0 1"
    assert set(shown(table)["model"]) == {"short", "draft", *REFERENCES}
    said = study_text(found, "python -m x")
    assert "| short | 0 1 |" in said and "Rule, set before" in said and "python -m x" in said


def test_few_documents_are_the_units_still_and_strategies_are_the_same_for_all(models):
    """Segments of three documents say nothing of other documents: a wide interval of three units is right."""
    texts = read_texts("samples", limit=3)
    found = study([ModelSpec(str(models["base"]))], EvennessQuery(texts, Strategy.of("fixed", {"k": 2})), load)
    (row,) = found.rows
    assert row.documents == row.sums.units.count == 3 and row.sums.units.kind == "documents"
    assert row.stages == "untrained"
    assert row.sums.segments == row.sums.queries.sum()
    with pytest.raises(TextError, match="no segment has two tokens"):
        study([ModelSpec(str(models["base"]))], EvennessQuery(texts, Strategy.of("fixed", {"k": 1})), load)


def test_what_cannot_be_read_is_said(models, runs, tmp_path):
    with pytest.raises(TextError, match="no held-out"):
        made = make_prepared(tmp_path / "all", models["sft"], examples=4, every=50)
        read_texts(str(made.path))
    with pytest.raises(TextError):
        read_texts(str(tmp_path / "no.jsonl"))
    with pytest.raises(TextError, match="not a table"):
        read_study(pd.DataFrame({"a": [1]}), "x.csv")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text((runs / "draft" / "run.json").read_text())
    with pytest.raises(MicroStepError, match="no model yet"):
        model_of(str(tmp_path / "run"))


# --- commands


def test_micro_attention_gives_what_python_does(models, tmp_path, command):
    out = tmp_path / "x.parquet"
    words = ("micro-attention", "--model", models["sft"], "--text", TEXT, "--strategy", "fixed:k=3")
    code, _, err = command(*words, "--out", out)
    spec = ModelSpec(str(models["sft"]))
    found = MicroRequest(spec, TextInput.plain(TEXT), strategy=Strategy.parse("fixed:k=3")).run(load)
    assert code == 0 and any("untrained" in line for line in err) and "effective context states" in err[-1]
    pd.testing.assert_frame_equal(pd.read_parquet(out), weight_table(found), check_dtype=False)
    code, said, _ = command(*words, "--segment", 0)
    assert code == 0 and "context:·layer·1" in said
    code, _, err = command(*words, "--segment", 99)
    assert code != 0 and "no segment 99" in err[-1]


@pytest.mark.parametrize("name", FIGURE_NAMES)
@pytest.mark.parametrize("segment", [None, 1])
def test_every_figure_has_a_bundle_whose_command_makes_its_data_again(
    models, tmp_path, monkeypatch, command, name, segment
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.export.chrome", lambda: None)
    words = ["micro-attention", "--figure", name, "--model", models["sft"], "--text", TEXT, "--layer", 1]
    words += ["--segment", segment, "--written", "--confidence", 0, "--max-new-tokens", 12] if segment else []
    assert command(*words, "--out", "x.zip")[0] == 0
    with zipfile.ZipFile("x.zip") as archive:
        archive.extractall()
        again = shlex.split(archive.read("README.txt").decode().strip().splitlines()[-1])
    drawn = json.loads((tmp_path / "figure.plotly.json").read_text())
    assert "<b>the" not in json.dumps(drawn)
    again[-1] = "again.parquet"
    assert again[0] == "micro-step" and command(*again[1:])[0] == 0
    pd.testing.assert_frame_equal(pd.read_parquet("figure.parquet"), pd.read_parquet("again.parquet"))


def test_evenness_writes_a_study_that_draws_itself_again(models, runs, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("analysis.export.chrome", lambda: None)
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": f"{TEXT} {i} times {i + 1} is {i * i + i}."}) + "\n" for i in range(9)))
    words = ["evenness", "--model", runs / "short-0", "--model", models["base"], "--data", data, "--out", "study"]
    code, said, _ = command(*words)
    assert code == 0 and said.count("effective context states of") == 3 and said.strip().endswith("study")
    table = read_study(pd.read_csv("study/evenness.csv", dtype={"seeds": "str"}), "evenness.csv")
    assert set(table["model"]) == {"short-0", "untrained (base)", "untrained (sft)"} and (table["documents"] == 9).all()
    assert (pd.read_csv("study/weights.csv")["weight"].between(0, 1)).all()
    text = (tmp_path / "study" / "evenness.md").read_text()
    assert "Rule, set before" in text and "95% intervals by Student's t over 9 documents" in text and "--data" in text
    assert {p.name for p in (tmp_path / "study").iterdir()} == {
        "evenness.csv", "weights.csv", "evenness.md", "models.html", "places.html",
    }  # fmt: skip
    for name in ("models", "places"):
        assert command("evenness", "--figure", name, "--table", "study/evenness.csv", "--out", f"{name}.zip")[0] == 0
        with zipfile.ZipFile(f"{name}.zip") as archive:
            archive.extractall(name)
            again = shlex.split(archive.read("README.txt").decode().strip().splitlines()[-1])
        monkeypatch.chdir(tmp_path / name)
        assert again[0] == "micro-step" and command(*again[1:])[0] == 0
        monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("micro-attention", "--text", TEXT, "--strategy", "hope"), "no segmentation rule"),
        (("micro-attention", "--text", TEXT, "--strategy", "word", "--written"), "either --strategy"),
        (("micro-attention", "--text", ""), "empty"),
        (("micro-attention", "--text", TEXT, "--max-length", "9"), "at most the model's 8"),
        (("micro-attention", "--text", TEXT, "--out", "x.doc"), "unknown format"),
        (("micro-attention", "--figure", "pie", "--text", TEXT, "--out", "x.csv"), "micro_segments"),
        (
            ("micro-attention", "--figure", "micro_weights", "--text", TEXT, "--out", "x.csv", "--layer", "7"),
            "no layer 7",
        ),
        (("evenness", "--data", "nothing.jsonl", "--out", "study"), "nothing.jsonl"),
        (("evenness", "--max-length", "99", "--out", "study"), "at most the model's 8"),
    ],
)
def test_mistakes_end_with_one_line(models, tmp_path, monkeypatch, command, words, said):
    monkeypatch.chdir(tmp_path)
    code, _, err = command(words[0], *words[1:], "--model", models["base"])
    assert code != 0 and said in err[-1] and not any("Traceback" in line for line in err)
    assert not list(tmp_path.iterdir())


def test_a_table_that_is_none_is_refused(tmp_path, command):
    file = tmp_path / "x.csv"
    file.write_text("a,b\n1,2\n")
    for path in (file, tmp_path / "lost.csv"):
        code, _, err = command("evenness", "--figure", "models", "--table", path, "--out", tmp_path / "x.html")
        assert code != 0 and len(err) == 1
