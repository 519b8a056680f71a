"""Micro_step models out of folders and around plain bases, and how the scoring paths read them."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from analysis.segmentation.single import feature_values
from analysis.uncertainty.compare import compare, compare_continuations
from analysis.uncertainty.scoring import encode_for, score_document
from model.causal_lm.forward import token_model
from model.errors import ModelBroken, ModelError
from model.hub.loading import ModelSpec, load
from model.hub.micro_step_io import OTHER_SOURCE, UNTRAINED
from model.hub.model_info import MicroStepInfo
from model.hub.wrap_base import micro_step_info, wrap
from model.scoring.limited_history import limited_history
from model.segmentation.features import Feature
from model.text.document import Document, TextInput
from tests.support.micro_steps import scramble

TEXT = Document.plain("the cat sat on the mat, and the dog sat down")


@pytest.fixture(scope="module")
def base(models):
    return load(ModelSpec(str(models["sft"])))


@pytest.fixture(scope="module")
def saved(models, base, tmp_path_factory):
    """The same trained model in two ways: modules beside a reference, and whole."""
    root = tmp_path_factory.mktemp("saved")
    model = wrap(base).model
    scramble(model)
    model.config.decoding = "lossless"
    model.save_modules(root / "modules", str(models["sft"]))
    model.save_pretrained(root / "whole")
    base.tokenizer.save_pretrained(root / "whole")
    return root


def test_untrained_modules_are_labelled_always_the_same_and_leave_the_base_alone(base):
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    state = torch.get_rng_state()
    one, two = wrap(base), wrap(base)
    assert torch.equal(state, torch.get_rng_state())
    assert one.facts.untrained and one.facts.base == base.facts.name and one.model.base is base.model
    for (name, a), b in zip(one.model.named_parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b), name
    assert all(torch.equal(before[name], weight) for name, weight in base.model.state_dict().items())
    assert not one.model.training and not any(p.requires_grad for p in one.model.parameters())


@pytest.mark.parametrize("how", ["modules", "whole"])
def test_a_saved_model_says_what_it_is_and_loads_with_tokenizer_and_base(base, saved, models, how):
    said = micro_step_info(str(saved / how))
    reference = str(models["sft"]) if how == "modules" else None
    assert said == MicroStepInfo(
        "lossless", 8, "residual_softmax", 2, said.context_layers, True, reference, None, False
    )
    loaded = load(ModelSpec(str(saved / how)))
    assert loaded.facts.micro_step == said and loaded.facts.family == "micro_step"
    assert loaded.facts.tokenizer_hash == base.facts.tokenizer_hash
    assert loaded.facts.layers == base.facts.layers and loaded.facts.parameters > base.facts.parameters
    ready = wrap(loaded)
    assert ready.model is loaded.model and not ready.facts.untrained
    ids = torch.tensor([[5, 6, 7]])
    other = wrap(load(ModelSpec(str(saved / ("whole" if how == "modules" else "modules"))))).model
    assert torch.equal(ready.model(ids).logits, other(ids).logits)


def test_a_micro_step_model_is_scored_as_its_base(base, saved):
    loaded = load(ModelSpec(str(saved / "modules")))
    found = compare(loaded, base, TextInput(TEXT))
    np.testing.assert_array_equal(found.a.scores.entropy, found.b.scores.entropy)
    np.testing.assert_array_equal(found.a.scores.topk_ids, found.b.scores.topk_ids)
    assert any("its base" in note and "was scored" in note for note in found.a.notes)
    both = compare_continuations(loaded, base, TextInput(TEXT), 6)
    np.testing.assert_array_equal(both.a.encoded.ids, both.b.encoded.ids)
    encoded = encode_for(loaded, TextInput(TEXT))
    for feature in (Feature("attention"), Feature("hidden", layer=1)):
        ours, theirs = feature_values(loaded, encoded, feature), feature_values(base, encoded, feature)
        for name, value in ours.values.items():
            np.testing.assert_array_equal(value, theirs.values[name])
    ours, theirs = (limited_history(each.model, encoded.ids, 4) for each in (loaded, base))
    np.testing.assert_array_equal(ours.scores.entropy, theirs.scores.entropy)
    assert token_model(base.model) is base.model


def test_saved_modules_that_learned_nothing_are_called_untrained(models, base, tmp_path):
    wrap(base).model.save_modules(tmp_path / "fresh", str(models["sft"]))
    loaded = load(ModelSpec(str(tmp_path / "fresh")))
    assert loaded.facts.micro_step.untrained and UNTRAINED in loaded.facts.approximations
    assert UNTRAINED in score_document(loaded, TextInput(TEXT)).notes


def test_other_folders_are_not_taken_for_one(models, tmp_path):
    assert micro_step_info(str(models["base"])) is None and micro_step_info("tiny-base") is None
    assert micro_step_info("nothing/of-the-kind") is None and micro_step_info(str(tmp_path)) is None


def test_what_cannot_be_loaded_says_why(saved, models, tmp_path, monkeypatch):
    monkeypatch.setattr("model.hub.loading.adapter_folder", lambda *_: tmp_path)
    with pytest.raises(ModelError, match="without a further adapter"):
        load(ModelSpec(str(saved / "modules"), adapter=str(saved)))
    for what in ("lost", "other", "torn", "odd"):
        shutil.copytree(saved / "modules", tmp_path / what)
    config = json.loads((tmp_path / "lost" / "config.json").read_text())

    def write(what, **changes):
        (tmp_path / what / "config.json").write_text(json.dumps({**config, **changes}))

    write("lost", base_reference={**config["base_reference"], "name": str(tmp_path / "gone")})
    with pytest.raises(ModelError, match="the base of .*lost cannot be loaded"):
        load(ModelSpec(str(tmp_path / "lost")))
    write("other", base_reference={**config["base_reference"], "name": str(models["base"])})
    with pytest.raises(ModelError, match="was trained on"):
        load(ModelSpec(str(tmp_path / "other")))
    weights = tmp_path / "torn" / "micro_step.safetensors"
    weights.write_bytes(weights.read_bytes()[:-7])
    with pytest.raises(ModelBroken, match="truncated"):
        load(ModelSpec(str(tmp_path / "torn")))
    write("odd", micro_layers="many")
    with pytest.raises(ModelError):
        load(ModelSpec(str(tmp_path / "odd")))
    assert micro_step_info(str(tmp_path / "odd")) is None


def test_another_source_of_a_catalog_model_is_taken_and_said(saved, models, tmp_path, monkeypatch):
    """Names of the catalog stand for one model, whose weights may come quantised; a folder stands for its files."""
    shutil.copytree(models["sft"], tmp_path / "base")
    shutil.copytree(saved / "modules", tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    config["base_reference"]["name"] = str(tmp_path / "base")
    (tmp_path / "m" / "config.json").write_text(json.dumps(config))
    assert not any("other weights" in note for note in load(ModelSpec(str(tmp_path / "m"))).facts.approximations)
    weights = load_file(tmp_path / "base" / "model.safetensors")
    save_file(
        {name: w * 1.02 for name, w in weights.items()}, tmp_path / "base" / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match="was trained on"):
        load(ModelSpec(str(tmp_path / "m")))
    monkeypatch.setattr("model.hub.micro_step_io.find", lambda name: name)
    assert OTHER_SOURCE in load(ModelSpec(str(tmp_path / "m"))).facts.approximations
