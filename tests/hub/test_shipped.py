"""The trained models that come along: small enough, whole, and what their cards and the catalog say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from data.run_folder import LOG, RECIPE, from_line
from model.causal_lm.padding import left_padded
from model.hub.catalog import find
from model.hub.fetch import is_cached
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.wrap_base import wrap
from trainer.recipe import read_recipe

pytestmark = pytest.mark.slow

BASE = "smollm2-135m-instruct"
NAMES = ("micro-step-smollm2-135m", "micro-step-smollm2-135m-draft", "control-smollm2-135m")
DEMO = Path(__file__).parents[2] / "data" / "demo"
QUESTION = "A shop sells pencils at 3 for 2 dollars. How much do 12 pencils cost?"


@pytest.fixture
def opened() -> Callable[[str], LoadedModel]:
    """Opens a model on the base, where that is on this machine."""
    if not is_cached(BASE):
        pytest.skip(f"{BASE} is not on this machine: micro-step model fetch {BASE}")
    return lambda name: load(ModelSpec(name, dtype="float32", device="cpu"))


def test_together_they_take_at_most_45_megabytes():
    assert sum(file.stat().st_size for name in NAMES for file in (DEMO / name).iterdir()) < 45e6


@pytest.mark.parametrize("name", NAMES)
def test_each_comes_with_the_recipe_that_made_it_its_whole_log_and_a_card(name):
    recipe = read_recipe(DEMO / name / RECIPE)
    shipped = [read_recipe(f"smollm2-{kind}") for kind in ("merged", "draft", "control")]
    assert recipe in shipped and recipe.name == name
    lines = [from_line(line) for line in (DEMO / name / LOG).read_text("utf-8").splitlines()]
    assert lines[-1].step == recipe.steps
    card = (DEMO / name / "README.md").read_text("utf-8")
    entry = find(name)
    assert entry is not None and f"license: {entry.licence}\n" in card
    assert "**Limits.**" in card and "## Data" in card


@pytest.mark.real
@pytest.mark.parametrize("name", [NAMES[0], NAMES[2]])
def test_each_opens_on_its_base_and_is_as_large_as_the_catalog_says(opened, name):
    _is_as_the_catalog_says(opened(name))


def _is_as_the_catalog_says(loaded):
    entry = find(loaded.facts.name)
    assert entry is not None and loaded.facts.parameters == entry.parameters
    assert not any(note.startswith("untrained") for note in loaded.facts.approximations)


@pytest.mark.real
def test_the_draft_writes_what_its_base_writes_in_far_fewer_passes(opened):
    loaded = opened(NAMES[1])
    _is_as_the_catalog_says(loaded)
    model = wrap(loaded).model
    turns = [{"role": "user", "content": QUESTION}]
    prompt = loaded.tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids, mask = left_padded([prompt])
    expected = model.base.generate(ids, attention_mask=mask, max_new_tokens=48, do_sample=False)
    drafted = model.generate_segments(ids, mask, verify=True, confidence=0.4, max_new_tokens=48)
    assert torch.equal(drafted.sequences, expected)
    assert len(drafted.rows[0].ids) / drafted.rows[0].macro_steps > 1.3


@pytest.mark.parametrize("name", NAMES)
def test_each_names_its_base_as_anyone_may_have_it(name):
    adapter = DEMO / name / "adapter_config.json"
    if adapter.is_file():
        assert json.loads(adapter.read_text("utf-8"))["base_model_name_or_path"] == BASE
    else:
        config = json.loads((DEMO / name / "config.json").read_text("utf-8"))
        assert config["base_reference"]["name"] == config["base_config"]["_name_or_path"] == BASE
