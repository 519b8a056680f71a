"""Models as other tools read them: the same in a fresh process, whole or not there, and nothing of this machine."""

from __future__ import annotations

import ast
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import model.convert.convert as conversion
from model.checkpoint_files import stored_dtypes
from model.convert.card import write_card
from model.convert.check import Check, check
from model.convert.hub_code import write_code
from model.errors import ExportError, ModelBroken, ModelError
from model.hub.spec import ModelSpec
from model.micro_step.modeling import MicroStepForCausalLM
from tests.support.micro_steps import scramble
from tests.support.tiny import save_tiny

pytestmark = pytest.mark.slow

FAMILIES = ("llama", "qwen3", "gemma3_text")
LORA = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """For each family modules on a base with a chat template: in bfloat16, llama's with an adapter."""
    root = tmp_path_factory.mktemp("sources")
    for family in FAMILIES:
        base = save_tiny(root / f"{family}-base", family, chat=True)
        (base / "README.md").write_text("---\nlicense: mit\n---\nA base.\n")
        (base / "LICENSE").write_text("Terms.")
        torch.manual_seed(0)
        model = MicroStepForCausalLM.from_base(AutoModelForCausalLM.from_pretrained(base), merger="attention")
        if family == "llama":
            model.add_adapter_to_base(**LORA)
        scramble(model)
        model.generation_config.eos_token_id = [2, 4]
        model.save_modules(root / family, str(base), dtype=torch.bfloat16)
    save_tiny(root / "qwen2-base", "qwen2", vocab_size=416, chat=True)  # more rows than tokens
    return root


def collect(monkeypatch, found: list[Check], source: Path, kind: str, out: Path, **how) -> None:
    """Convert, and put off what must be read in a fresh process, which takes seconds."""

    def later(checks, threads):
        staging = checks[0].folder
        found.extend(replace(each, folder=out / each.folder.relative_to(staging)) for each in checks)

    monkeypatch.setattr(conversion, "check", later)
    conversion.convert(ModelSpec(str(source)), kind, out, **how)


def test_a_fresh_process_finds_the_same_models(monkeypatch, tmp_path, sources):
    checks: list[Check] = []
    for family in FAMILIES:
        collect(monkeypatch, checks, sources / family, "modules", tmp_path / f"{family}-modules")
        collect(monkeypatch, checks, sources / family, "whole", tmp_path / f"{family}-whole", dtype="bfloat16")
        collect(monkeypatch, checks, sources / family, "hub", tmp_path / f"{family}-hub")
        collect(monkeypatch, checks, tmp_path / f"{family}-whole", "vllm", tmp_path / f"{family}-vllm")
    collect(monkeypatch, checks, sources / "llama", "vllm", tmp_path / "apart", keep_adapter=True)
    collect(monkeypatch, checks, sources / "qwen3-base", "whole", tmp_path / "plain", dtype="float16")
    collect(monkeypatch, checks, sources / "llama", "gguf", tmp_path / "llama-gguf", dtype="bfloat16")
    collect(monkeypatch, checks, sources / "qwen2-base", "gguf", tmp_path / "qwen2-gguf")  # its layers have biases
    check(checks, threads=1)

    assert stored_dtypes(tmp_path / "llama-modules") == {"BF16"}
    assert stored_dtypes(tmp_path / "gemma3_text-whole") == stored_dtypes(tmp_path / "gemma3_text-vllm") == {"BF16"}
    assert stored_dtypes(tmp_path / "plain") == {"F16"}
    assert any("lora_A" in name for name in load_file(tmp_path / "apart" / "adapter" / "adapter_model.safetensors"))
    engine = json.loads((tmp_path / "llama-vllm" / "config.json").read_text())
    assert engine["architectures"] == ["LlamaForCausalLM"] and engine["dtype"] == "bfloat16"
    assert (tmp_path / "plain" / "LICENSE").is_file()
    assert "license: mit" in (tmp_path / "plain" / "README.md").read_text()
    for path in tmp_path.rglob("*"):  # modules alone name the place of their base
        if path.suffix in (".json", ".md", ".jinja") and not path.parent.name.endswith("-modules"):
            assert str(tmp_path.parent) not in path.read_text(), path


def test_code_for_the_hub_needs_transformers_alone(tmp_path):
    """A package in any import of a model's own code must be installed, also where the import never runs."""
    write_code(tmp_path)
    trees = [ast.parse(path.read_text()) for path in tmp_path.glob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    packages = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    packages |= {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    assert packages - sys.stdlib_module_names == {"torch", "transformers", "safetensors", "huggingface_hub", "numpy"}


def test_another_model_is_not_kept(monkeypatch, tmp_path, sources):
    monkeypatch.setattr("model.convert.check._reloaded", lambda checks, alone, threads: [
        {**each.expected, "greedy tokens": [1]} for each in checks
    ])  # fmt: skip
    with pytest.raises(ModelBroken, match="greedy tokens"):
        conversion.convert(ModelSpec(str(sources / "qwen3")), "whole", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_unreadable_copy_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr("sys.executable", "false")
    with pytest.raises(ModelBroken, match="fresh process"):
        check([Check(tmp_path, {})], threads=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("micro-step-tiny", "--to", "modules"), "holds its base"),
        (("tiny-sft", "--to", "vllm"), "no micro_step model"),
        (("micro-step-tiny", "--to", "whole", "--keep-adapter"), "merged"),
        (("micro-step-tiny", "--to", "onnx"), "onnx"),
        (("gemma3_text-base", "--to", "gguf"), "gemma3_text"),
    ],
)
def test_what_cannot_be_converted_is_one_line(tmp_path, command, sources, words, said):
    words = (str(sources / words[0]) if (sources / words[0]).is_dir() else words[0], *words[1:])
    code, out, lines = command("model", "convert", *words, "--out", tmp_path / "o" / "out")
    assert code and not out and said in lines[-1] and not list(tmp_path.iterdir())


def test_a_folder_with_files_stays_as_it_is(tmp_path, command):
    (tmp_path / "thesis.txt").write_text("years of work")
    code, _, lines = command("model", "convert", "micro-step-tiny", "--to", "whole", "--out", tmp_path)
    assert code == 1 and "choose a new folder" in lines[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_odd_places_are_refused_or_followed(monkeypatch, tmp_path):
    monkeypatch.setattr(conversion, "check", lambda checks, threads: None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    for out in (".", "circle", "x" * 300):
        with pytest.raises(ExportError):
            conversion.convert(ModelSpec("micro-step-tiny"), "hub", Path(out))
    (tmp_path / "circle").unlink()
    (tmp_path / "link").symlink_to("linked")  # to a folder that is not there yet
    conversion.convert(ModelSpec("micro-step-tiny"), "hub", Path("link"))
    assert {path.name for path in tmp_path.iterdir()} == {"link", "linked"} and (tmp_path / "link").is_symlink()
    assert (tmp_path / "linked" / "README.md").read_text().count("trust_remote_code=True") == 2  # else it asks


def test_a_full_disk_is_one_line_and_leaves_nothing(monkeypatch, tmp_path, command):
    def full(*_: object, **__: object) -> None:
        raise SafetensorError("No space left on device")  # as safetensors says it, which is no OSError

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    code, out, lines = command("model", "convert", "micro-step-tiny", "--to", "whole", "--out", tmp_path / "o" / "out")
    assert code == 1 and not out and "space" in lines[-1] and not list(tmp_path.iterdir())


def test_a_link_out_of_the_model_s_folder_is_not_copied(tmp_path):
    folder, blobs = tmp_path / "m" / "snapshots" / "1", tmp_path / "m" / "blobs"
    for made in (folder, blobs, tmp_path / "copy"):
        made.mkdir(parents=True)
    (tmp_path / "secret").write_text("a key")
    (blobs / "abc").write_text("Apache")
    (folder / "README.md").symlink_to(tmp_path / "secret")
    (folder / "LICENSE.x").symlink_to(tmp_path / "secret")
    (folder / "LICENSE").symlink_to("../../blobs/abc")
    (folder / "NOTICE").write_text("theirs")
    facts = SimpleNamespace(name="m", licence=None, micro_step=None, approximations=(), source="folder m", revision="1")
    base = SimpleNamespace(config=SimpleNamespace(_name_or_path=""))
    write_card(SimpleNamespace(facts=facts, base=base, folder=folder, dtype="float32"), tmp_path / "copy", "A.", "Use.")
    texts = {path.name: path.read_text() for path in (tmp_path / "copy").iterdir()}
    assert texts.keys() == {"README.md", "LICENSE", "NOTICE"} and "a key" not in "".join(texts.values())


def test_the_command_prints_the_folder_and_what_uses_it(monkeypatch, tmp_path, command):
    monkeypatch.setattr(conversion, "check", lambda checks, threads: None)
    (tmp_path / "out").mkdir()
    code, out, lines = command("model", "convert", "micro-step-tiny", "--to", "vllm", "--out", tmp_path / "out")
    assert code == 0 and out == f"{tmp_path / 'out'}\n"
    assert f"micro-step serve {tmp_path / 'out'} --engine vllm" in lines[-1]
    assert command("model", "show", tmp_path / "out" / "micro_step")[0] == 0  # its base is the folder above


def test_rotary_frequencies_stay_in_float32(sources):
    model = MicroStepForCausalLM.from_pretrained(sources / "qwen3", dtype=torch.bfloat16)
    frequencies = {buffer.dtype for name, buffer in model.named_buffers() if "inv_freq" in name}
    assert model.dtype == torch.bfloat16 and frequencies == {torch.float32}


def test_modules_of_another_base_are_refused(tmp_path, sources):
    model = MicroStepForCausalLM.from_pretrained(sources / "qwen3")
    model.save_modules(tmp_path / "m", "tiny-sft")
    with pytest.raises(ModelError):
        conversion.convert(ModelSpec(str(tmp_path / "m")), "modules", tmp_path / "out")
