"""Saving and loading: whole, or beside a reference to the base; in a fresh process; with the wrong base."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from model.errors import ExportError, ModelBroken, ModelError
from model.micro_step.fingerprint import fingerprint
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.saving import MODULES
from tests.support.micro_steps import micro_step, ragged, random_starts, scramble
from tests.support.tiny import save_tiny, tiny_model

pytestmark = pytest.mark.slow

IDS = torch.randint(5, 400, (2, 19), generator=torch.Generator().manual_seed(1))
STARTS = random_starts(IDS, prompt=5, most=4)
LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}


def logits(model: MicroStepForCausalLM) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, segment_starts=STARTS).logits


@pytest.fixture
def on_disk(tmp_path):
    """A base on disk, and a scrambled model around it."""
    where = save_tiny(tmp_path / "base", "llama")
    model = MicroStepForCausalLM.from_base(AutoModelForCausalLM.from_pretrained(where))
    scramble(model)
    return where, model.eval()


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gpt2"])
def test_the_whole_model_comes_back_equal(tmp_path, family):
    model = micro_step(family, merger="attention")
    model.save_pretrained(tmp_path / "m")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert type(again) is MicroStepForCausalLM
    assert torch.equal(logits(again.eval()), logits(model))
    ids, mask = ragged([4, 9])
    options = {"max_new_tokens": 12, "confidence": 0.1}
    assert torch.equal(
        again.generate(ids, attention_mask=mask, **options), model.generate(ids, attention_mask=mask, **options)
    )
    stored = load_file(tmp_path / "m" / "model.safetensors")
    tied = model.base.get_output_embeddings().weight is model.base.get_input_embeddings().weight
    assert len(stored) == len({id(w) for w in model.parameters()}) and tied == (family != "qwen3")


_FRESH = """
import sys, torch
from transformers import AutoModelForCausalLM
import model.micro_step.modeling
ids, starts = torch.load(sys.argv[1]), torch.load(sys.argv[2])
for folder in sys.argv[3:]:
    found = AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        torch.save(found(ids, segment_starts=starts).logits, folder + ".logits")
"""


def test_a_fresh_process_loads_it_whole_and_beside_its_base(tmp_path, on_disk):
    where, model = on_disk
    model.save_pretrained(tmp_path / "whole")
    model.save_modules(tmp_path / "modules", str(where))
    torch.save(IDS, tmp_path / "ids")
    torch.save(STARTS, tmp_path / "starts")
    files = [str(tmp_path / name) for name in ("ids", "starts", "whole", "modules")]
    subprocess.run([sys.executable, "-c", _FRESH, *files], check=True, cwd=Path(__file__).parents[2])
    for name in ("whole", "modules"):
        assert torch.equal(torch.load(tmp_path / f"{name}.logits"), logits(model))


def test_the_modules_alone_come_back_on_their_base(tmp_path, on_disk):
    where, model = on_disk
    model.save_modules(tmp_path / "m", str(where), revision=None)
    stored = load_file(tmp_path / "m" / MODULES)
    assert stored and not any(name.startswith("base.") for name in stored)
    again = MicroStepForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.equal(logits(again), logits(model)) and not again.training
    shared = MicroStepForCausalLM.from_pretrained(tmp_path / "m", base=model.base)
    assert shared.base is model.base and torch.equal(logits(shared), logits(model))
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16 and half.base.dtype == torch.bfloat16


def test_who_may_read_the_configuration_may_read_the_weights(tmp_path, on_disk):
    where, model = on_disk
    model.save_modules(tmp_path / "m", str(where))
    assert (tmp_path / "m" / MODULES).stat().st_mode == (tmp_path / "m" / "config.json").stat().st_mode


def test_an_adapter_comes_along_merged_or_to_train_on(tmp_path, on_disk):
    where, model = on_disk
    before = logits(model)
    model.add_adapter_to_base(**LORA)
    scramble_adapter(model)
    adapted = logits(model)
    assert not torch.allclose(adapted, before, atol=1e-3)
    with pytest.raises(ModelError, match="call merge_adapter"):
        model.save_pretrained(tmp_path / "whole")
    model.save_modules(tmp_path / "m", str(where))
    merged = MicroStepForCausalLM.from_pretrained(tmp_path / "m")
    assert torch.allclose(logits(merged), adapted, atol=1e-4)
    assert not any("lora" in name for name, _ in merged.named_parameters()) and merged.config.adapter is None
    kept = MicroStepForCausalLM.from_pretrained(tmp_path / "m", merge_adapter=False)
    assert torch.equal(logits(kept), adapted) and len(kept.trainable("adapter")) == 12
    model.merge_adapter()
    model.save_pretrained(tmp_path / "whole")
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    assert torch.allclose(logits(whole), adapted, atol=1e-4)


def scramble_adapter(model: MicroStepForCausalLM) -> None:
    with torch.no_grad():
        for weight in model.trainable("adapter"):
            weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)) * 0.3)


def test_another_base_is_refused_and_named(tmp_path, on_disk):
    where, model = on_disk
    model.save_modules(tmp_path / "m", str(where))
    save_tiny(where, "llama", seed=9)
    with pytest.raises(ModelError, match=r"m was trained on .*base with weights [0-9a-f]{12}; the base given .* has"):
        MicroStepForCausalLM.from_pretrained(tmp_path / "m")
    assert MicroStepForCausalLM.from_pretrained(tmp_path / "m", allow_other_base=True)
    with pytest.raises(ModelError, match="trained on a base with model_type llama; the base given has gpt2"):
        MicroStepForCausalLM.from_pretrained(tmp_path / "m", base=tiny_model("gpt2"), allow_other_base=True)


def test_the_fingerprint_knows_weights_and_not_their_precision():
    base = tiny_model("llama")
    first = fingerprint(base)
    assert fingerprint(tiny_model("llama")) == first
    assert fingerprint(tiny_model("llama").to(torch.bfloat16)) == first
    assert fingerprint(tiny_model("llama", seed=1)) != first
    with torch.no_grad():
        base.model.layers[1].mlp.up_proj.weight.mul_(1.02)
    assert fingerprint(base) != first
    adapted = micro_step()
    adapted.add_adapter_to_base(**LORA)
    assert fingerprint(adapted.base) == first


def test_broken_folders_are_one_sentence(tmp_path, on_disk):
    where, model = on_disk
    folder = tmp_path / "m"
    model.save_modules(folder, str(where))
    whole = (folder / MODULES).read_bytes()
    (folder / MODULES).write_bytes(whole[:-40])
    with pytest.raises(ModelBroken, match="truncated"):
        MicroStepForCausalLM.from_pretrained(folder)
    (folder / MODULES).write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "micro_layers": 3}))
    with pytest.raises(ModelBroken, match="does not fit its configuration"):
        MicroStepForCausalLM.from_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({**config, "base_reference": 3}))
    with pytest.raises(ModelBroken, match="does not say which base"):
        MicroStepForCausalLM.from_pretrained(folder)
    gone = {**config["base_reference"], "name": str(tmp_path / "gone")}
    (folder / "config.json").write_text(json.dumps({**config, "base_reference": gone}))
    with pytest.raises(ModelError, match="gone"):
        MicroStepForCausalLM.from_pretrained(folder)


def test_a_folder_of_something_else_is_not_overwritten(tmp_path, on_disk):
    where, model = on_disk
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="holds other files"):
        model.save_modules(tmp_path / "mine", str(where))
    model.save_modules(tmp_path / "m", str(where))
    model.save_modules(tmp_path / "m", str(where))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "m", "mine"]
