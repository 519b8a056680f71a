"""What is missing or is not what it seems is named: git-LFS pointers, tokenizers, adapters, numbers in YAML."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from data.corpus.documents import CorpusSpec, open_corpus
from data.sources.schema import Source
from data.yaml_config import StrictModel, dump_yaml, read_yaml
from model.errors import MicroStepError, ModelBroken, ModelError, TextError
from model.hub.loading import ModelSpec, load
from tests.support.command import call
from tests.support.tiny import save_tiny, tiny_model, tiny_tokenizer
from trainer.recipe import read_recipe

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 12345\n"
SAID = "is a git-LFS pointer, not the file itself: run `git lfs pull`"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "tiny", "llama", chat=True)


@pytest.fixture
def adapter(tmp_path: Path, model: Path) -> Path:
    """A LoRA adapter as peft saves it, which names its base."""
    base = tiny_model("llama")
    base.name_or_path = str(model)
    adapted: Any = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], base_model_name_or_path=str(model)))
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


# --- git-LFS


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
def test_a_pointer_in_a_models_folder_is_named(model: Path, name: str) -> None:
    """It used to be a damaged file, or a page of JSON errors."""
    (model / name).write_text(POINTER, "utf-8")
    with pytest.raises(ModelBroken, match=f"cannot be loaded: {name} {SAID}"):
        load(ModelSpec(str(model)))


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_pointer_in_an_adapter_is_named(model: Path, adapter: Path, name: str) -> None:
    (adapter / name).write_text(POINTER, "utf-8")
    for spec in (ModelSpec(str(adapter)), ModelSpec(str(model), adapter=str(adapter))):
        with pytest.raises(ModelBroken, match=f"{name} {SAID}"):
            load(spec)


def test_a_gguf_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text(POINTER, "utf-8")
    with pytest.raises(ModelBroken, match=f"model.gguf {SAID}"):
        load(ModelSpec(str(tmp_path / "model.gguf")))


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.jsonl.gz", "a.parquet"])
def test_data_that_is_a_pointer_is_no_text(tmp_path: Path, name: str) -> None:
    """A corpus of one document, "version https://git-lfs...", used to be scored."""
    from data.sources.records import _file_records

    (tmp_path / name).write_text(POINTER, "utf-8")
    with pytest.raises(TextError, match=f"{name} {SAID}"):
        open_corpus(CorpusSpec(str(tmp_path / name)))
    with pytest.raises(TextError, match=f"{name} {SAID}"):
        next(_file_records(Source(name="made", title="made", licence="MIT", text="text", local=name), tmp_path / name))


def test_a_text_or_recipe_that_is_a_pointer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.yaml").write_text(POINTER, "utf-8")
    with pytest.raises(MicroStepError, match=f"a.yaml {SAID}"):
        read_recipe(str(tmp_path / "a.yaml"))
    assert call(monkeypatch, "score", "--model", "tiny-base", "--text-file", tmp_path / "a.yaml") == 1
    assert SAID in capsys.readouterr().err


# --- tokenizers


def test_a_model_without_tokenizer_says_so_and_one_can_be_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message used to be that a tokenizer is missing or damaged, with a hint of transformers' own."""
    bare = tmp_path / "bare"
    tiny_model("llama").save_pretrained(bare)
    (tmp_path / "only").mkdir()
    tiny_tokenizer(chat=True).save_pretrained(tmp_path / "only")
    with pytest.raises(ModelError, match=r"bare comes without a tokenizer: .* \(--tokenizer\)$"):
        load(ModelSpec(str(bare)))
    for place in (model, tmp_path / "only"):
        found = load(ModelSpec(str(bare), tokenizer=str(place)))
        assert found.facts.tokenizer_hash == load(ModelSpec(str(model))).facts.tokenizer_hash
        assert found.facts.approximations == (f"it comes without a tokenizer; that of {place} is used",)
    with pytest.raises(ModelError, match="holds no tokenizer"):
        load(ModelSpec(str(bare), tokenizer=str(bare)))
    own = load(ModelSpec(str(model), tokenizer=str(tmp_path / "only"))).facts.approximations
    assert own == (f"its own tokenizer is used, not that of {tmp_path / 'only'}",)
    out = tmp_path / "scores.csv"
    words = ("score", "--model", bare, "--text", "The cat sat.", "--out", out)
    assert call(monkeypatch, *words) == 1 and "--tokenizer" in capsys.readouterr().err
    assert call(monkeypatch, *words, "--tokenizer", model) == 0 and out.is_file()


# --- adapters


def test_an_adapter_beside_a_config_is_an_adapter(model: Path, adapter: Path) -> None:
    """Some trainers put the base's config.json there: it used to be a model without weights."""
    alone = load(ModelSpec(str(adapter)))
    shutil.copy(model / "config.json", adapter / "config.json")
    beside = load(ModelSpec(str(adapter)))
    assert beside.facts.revision == alone.facts.revision and beside.facts.kind == "sft"
    ours, theirs = beside.model.state_dict(), alone.model.state_dict()
    assert all((ours[name] == theirs[name]).all() for name in theirs)


def test_a_whole_model_with_an_adapter_beside_it_is_refused(model: Path, adapter: Path) -> None:
    """Transformers applies such an adapter unasked, older ones to the base it names: nobody said which is meant."""
    for file in adapter.glob("adapter_*"):
        shutil.copy(file, model / file.name)
    with pytest.raises(ModelBroken, match="it holds a whole model and an adapter beside it"):
        load(ModelSpec(str(model)))
    assert load_file(model / "adapter_model.safetensors")


# --- numbers in YAML


class _Numbers(StrictModel):
    rate: float
    name: str = "x"


@pytest.mark.parametrize(
    ("written", "value"),
    [("3e-3", 3e-3), ("3E-3", 3e-3), ("1e5", 1e5), ("+2.e+1", 20.0), (".5e1", 5.0), ("-1e-2", -0.01), ("1.0e5", 1e5),
     ("3.0e-3", 3e-3), ("0.25", 0.25)],
)  # fmt: skip
def test_a_number_with_an_exponent_is_a_number(tmp_path: Path, written: str, value: float) -> None:
    """YAML 1.1 reads 3e-3 and 1.0e5 as texts, so that a learning rate was refused as no number."""
    (tmp_path / "a.yaml").write_text(f"rate: {written}\n", "utf-8")
    assert read_yaml(tmp_path / "a.yaml", _Numbers).rate == value


def test_a_text_that_looks_like_a_number_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    for name in ("1e5", "12e4567", "e5", "1e", "3e-3x"):
        path.write_text(dump_yaml(_Numbers(rate=1e-5, name=name)), "utf-8")
        assert read_yaml(path, _Numbers) == _Numbers(rate=1e-5, name=name)
    path.write_text("rate: 1\nname: 12e4\n", "utf-8")
    with pytest.raises(MicroStepError, match="valid string, got 120000.0; put it in quotes"):
        read_yaml(path, _Numbers)


def test_a_recipe_may_write_its_rates_so(tmp_path: Path) -> None:
    shipped = yaml.safe_load((Path(__file__).parents[2] / "trainer" / "recipes" / "tiny.yaml").read_text("utf-8"))
    text = json.dumps(shipped).replace('"new": 0.003', '"new": 3e-3')
    assert "3e-3" in text
    (tmp_path / "a.yaml").write_text(text, "utf-8")
    assert read_recipe(str(tmp_path / "a.yaml")).stages[0].rates["new"] == 3e-3
