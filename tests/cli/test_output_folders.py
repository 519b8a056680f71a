"""Every command with --out makes the folders above what it writes. Runs of minutes are replaced by made-up results."""

from __future__ import annotations

import inspect
import json
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml

from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.scoring import score_corpus
from micro_step.cli import VERBS
from model.hub.loading import ModelSpec, load
from tests.support.command import call
from tests.support.evaluations import save_evaluation, write_local
from tests.support.training import make_prepared, recipe
from tests.support.training_logs import save_run

pytestmark = pytest.mark.slow

TEXT = ("--text", "the cat sat on the mat")
PAIR = ("--a", "{base}", "--b", "{sft}")
CALLS = {  # for each command: its arguments, and the name of what it writes
    "score": (("--model", "{base}", *TEXT), "x.csv"),
    "compare": ((*PAIR, *TEXT), "x.csv"),
    "segment": (("--model", "{base}", *TEXT, "--strategy", "word"), "x.csv"),
    "solve": (("--model", "{base}", *TEXT, "--strategy", "entropy", "--target-length", 2), "x.csv"),
    "generate": (("--model", "{base}", "--prompt", "the cat", "--max-new-tokens", 2), "x.csv"),
    "attention": (("--model", "{base}", *TEXT, "--layer", 0), "x.npz"),
    "micro-attention": (("--model", "{base}", *TEXT), "x.csv"),
    "attribute": (("--model", "{base}", *TEXT, "--at", 3), "x.csv"),
    "depth": (("--model", "{base}", *TEXT), "x.csv"),
    "depth-study": ((*PAIR, "--data", "{texts}"), "folder"),
    "evenness": (("--model", "{base}", "--data", "{texts}"), "folder"),
    "runs": (("{run}",), "x.csv"),
    "train": (("{recipe}", "--prepared", "{prepared}", "--device", "cpu"), "folder"),
    "corpus score": (("--model", "{base}", "--data", "{texts}"), "folder"),
    "corpus report": (("{store}",), "x.csv"),
    "corpus rank": (("{store}",), "x.csv"),
    "corpus table": (("{store}",), "x.csv"),
    "corpus change": (("{store}", "{store}"), "x.csv"),
    "corpus study": ((*PAIR, "--data", "{texts}"), "folder"),
    "examples": ((), "folder"),
    "data clean": (("{mix}",), "folder"),
    "data distill": (("{prepared}/examples", "--model", "{sft}", "--max-new-tokens", 1, "--limit", 1), "folder"),
    "data prepare": (("{mix}", "--model", "{sft}"), "folder"),
    "data held-out": (("{prepared}", "--references"), "x.jsonl"),
    "eval run": (
        ("--model", "{sft}", "--tasks", "arc_challenge", "--local", "{local}", "--limit", 1, "--device", "cpu"),
        "folder",
    ),
    "eval report": (("{evaluation}",), "x.md"),
    "eval samples": (("{evaluation}/arc_challenge@base.jsonl",), "x.csv"),
    "eval ablate": (("{grid}", "--table", "{out}/tables/x.md"), "folder"),
    "bench decode": (("--no-baselines",), "x.json"),
    "bench families": (("--family", "llama"), "x.md"),
    **{
        f"bench {name}": ((), "x.json")
        for name in (
            "score",
            "segment",
            "words",
            "harness",
            "train",
            "train-step",
            "attention",
            "corpus",
            "app",
            "depth",
            "serve",
            "load",
        )
    },
    "model convert": (("{base}", "--to", "whole"), "folder"),
    "bench drafts": (("--prepared", "{prepared}", "--model", "{base}"), "x.json"),
}


@pytest.fixture(scope="module")
def inputs(models, tmp_path_factory):
    """What the commands read, by name."""
    root = tmp_path_factory.mktemp("inputs")
    texts = root / "texts.txt"
    texts.write_text("\n".join(f"the cat {i} sat on the mat and {i} dogs sleep" for i in range(6)), "utf-8")
    corpus = open_corpus(CorpusSpec(str(texts), documents="line"))
    score_corpus(lambda: load(ModelSpec(str(models["base"]))), corpus, root / "store")
    (root / "recipe.yaml").write_text(recipe(models["sft"], steps=1).model_dump_json(), "utf-8")
    (root / "rows.jsonl").write_text(
        "".join(json.dumps({"q": f"Say {i}.", "a": f"Here: {i}."}) + "\n" for i in range(60)), "utf-8"
    )
    mix = {"name": "m", "sources": [{"file": str(root / "rows.jsonl"), "columns": {"prompt": "q", "response": "a"}}]}
    (root / "mix.yaml").write_text(yaml.safe_dump(mix), "utf-8")
    (root / "local").mkdir()
    make_prepared(root / "prepared", models["sft"], 16)
    return {
        **models,
        **{name: root / name for name in ("prepared", "store")},
        **{name: root / f"{name}.yaml" for name in ("recipe", "mix", "grid")},
        "texts": texts,
        "run": save_run(root / "run"),
        "local": write_local(root / "local"),
        "evaluation": save_evaluation(root / "evaluation", "m", [None]),
    }


def made_up_examples(pair, folder):
    """A stored result of a pair."""
    (folder / f"{pair.a}.npz").write_bytes(b"made up")
    yield folder / f"{pair.a}.npz"


@pytest.fixture
def short(monkeypatch):
    """Replace what takes minutes, but for its writing."""
    import benchmarks.families.cli as families
    from benchmarks.families.features import Family

    monkeypatch.setattr("analysis.export.chrome", lambda: None)
    for module in (
        *("score", "segment", "words", "speed.drafts", "speed.serve", "harness", "train_step", "train", "attention"),
        *("app", "depth", "load.measure", "speed.corpus"),
    ):
        monkeypatch.setattr(f"benchmarks.{module}.measure", lambda given, tell: {"benchmark": "made up"})
    monkeypatch.setattr(families, "_measured", lambda names: [Family(name, "", {}, ()) for name in names])
    monkeypatch.setattr(families, "page", lambda families: "made up")
    for name, value in {
        "decoders.load_models": SimpleNamespace(tokenizer=None),
        "prompts.find_prompts": {},
        "prompts.mixed": [],
        "compare.compare": {"benchmark": "made up"},
    }.items():
        monkeypatch.setattr(f"benchmarks.speed.{name}", lambda *_, value=value: value)
    monkeypatch.setattr("model.convert.convert.check", lambda checks, threads: None)
    monkeypatch.setattr("app.cli.is_cached", lambda name: True)
    monkeypatch.setattr("app.cli.kept", made_up_examples)
    study = SimpleNamespace(tables={"judged": pd.DataFrame({"value": [1]})})
    monkeypatch.setattr("analysis.corpus.study._judged", lambda *_: study)
    monkeypatch.setattr("analysis.corpus.study.study_text", lambda study: "made up")
    monkeypatch.setattr("analysis.corpus.study.compute_features", lambda *_: None)
    monkeypatch.setattr(
        "evals.ablation.grid.read_grid", lambda grid: SimpleNamespace(name="g", seeds=(0,), documents=())
    )
    monkeypatch.setattr("evals.ablation.grid.runs_of", lambda grid: [])
    monkeypatch.setattr("evals.ablation.dry_run.plan", lambda *_: SimpleNamespace(text=""))
    monkeypatch.setattr("evals.ablation.run.ablate", lambda *_: [])


def test_every_command_with_an_output_is_tried():
    assert {name for name, verb in VERBS.items() if "out" in inspect.signature(verb.load()).parameters} == set(CALLS)


@pytest.mark.parametrize("verb", CALLS)
def test_an_output_makes_its_folders(verb, inputs, short, tmp_path, monkeypatch, capsys):
    words, name = CALLS[verb]
    out = tmp_path / "a" / "b" / name
    given = [str(word).format(**inputs, out=tmp_path) for word in words]
    assert call(monkeypatch, *verb.split(), *given, "--out", out) == 0, capsys.readouterr().err
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written and all(path.stat().st_size for path in written if path.name != ".lock")
    assert out.exists() or verb == "eval ablate"


def test_a_folder_of_other_files_is_not_replaced_by_examples(short, tmp_path, monkeypatch, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert call(monkeypatch, "examples", "--out", tmp_path) == 1
    assert "other files" in capsys.readouterr().err and (tmp_path / "thesis.txt").read_text() == "mine"


def test_a_file_in_the_way_is_named_before_any_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    for verb, words in (("score", ("--model", "nope", *TEXT)), ("bench score", ())):
        out = tmp_path / "file" / "b" / ("x.csv" if verb == "score" else "x.json")
        assert call(monkeypatch, *verb.split(), *words, "--out", out) == 1
        assert f"{tmp_path / 'file'} is a file" in capsys.readouterr().err
