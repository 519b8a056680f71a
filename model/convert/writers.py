"""What is written for each kind of copy. Each writer fills an empty folder and says what must be read there again."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from model.checkpoint_files import share_weights
from model.convert.card import write_card
from model.convert.check import Check
from model.convert.hamburger import FILE, write_hamburger
from model.convert.hub_code import AUTO_MAP, write_code
from model.convert.source import SourceModel, cast_weights, rounded
from model.errors import ModelError
from model.micro_step.base_source import PARENT
from model.micro_step.fingerprint import fingerprint
from model.micro_step.saving import base_reference


def write_modules(source: SourceModel, folder: Path, name: str) -> list[Check]:
    """Merger, micro decoder, stop head and adapter, with a reference to the base."""
    model, reference = source.micro_step, base_reference(source.folder)
    if reference is None:
        raise ModelError(
            f"{source.facts.name} holds its base, which was trained with it and is nowhere else: convert it to vllm,"
            " which writes base and modules side by side"
        )
    if fingerprint(model.base) != reference["fingerprint"]:
        raise ModelError(
            f"{source.facts.name} was trained with other weights of {reference['name']} than those on this machine, so"
            " its modules cannot refer to these: convert it to whole"
        )
    rounded(source, modules_only=True)
    model.save_modules(folder, reference["name"], reference["revision"], source.dtype)
    write_card(source, folder, "The modules of a micro_step model, without its base.", _code(name))
    if model.config.adapter is not None and model.config.prompt_adapter:
        model.merge_adapter()
    return [source.expected(folder)]


def write_whole(source: SourceModel, folder: Path, name: str) -> list[Check]:
    """Everything in one folder, for transformers' Auto classes."""
    plain = source.facts.micro_step is None
    if not plain:
        source.model.config.base_reference = None
    _save(rounded(source).model, source, folder)
    what = "A whole model." if plain else "A whole micro_step model: base, merger and micro decoder."
    write_card(source, folder, what, _code(name, plain))
    return [source.expected(folder, alone=plain)]


def write_hub(source: SourceModel, folder: Path, name: str) -> list[Check]:
    """Everything in one folder, with the code that it needs."""
    source.micro_step.config.base_reference = None
    source.model.config.auto_map = AUTO_MAP
    _save(rounded(source).model, source, folder)
    write_code(folder)
    what = "A whole micro_step model with its code, for which transformers alone must be installed."
    write_card(source, folder, what, _code(name, own_code=True))
    return [source.expected(folder, alone=True, own_code=True)]


def write_vllm(source: SourceModel, folder: Path, name: str) -> list[Check]:
    """A plain base that any engine loads, and the modules in a folder beside its files.

    An adapter that is left apart is written for engines, in peft's format, and with the modules.
    """
    model = rounded(source).micro_step
    apart, modules = model.config.adapter is not None, folder / "micro_step"
    _save(model.base, source, folder, folder / "adapter" if apart else None)
    model.save_modules(modules, PARENT, None, source.dtype)
    what = "The base of a micro_step model, which any engine loads, and in `micro_step/` the modules around it."
    write_card(source, folder, what, _code(f"{name}/micro_step"))
    if not apart:
        return [source.expected(folder, model.base, alone=True), source.expected(modules)]
    model.base.disable_adapters()
    found = [source.expected(folder, model.base, alone=True)]
    model.base.enable_adapters()
    model.merge_adapter()
    return [*found, source.expected(modules)]


def write_published(source: SourceModel, folder: Path, name: str) -> list[Check]:
    """HAMburger's published layout, with the tokenizer and our configuration beside it."""
    model = rounded(source).micro_step
    write_hamburger(model, folder / FILE, source.dtype)
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    source.tokenizer.name_or_path = ""
    source.tokenizer.save_pretrained(folder)
    use = f'```python\ntorch.load("{name}/{FILE}", weights_only=True)["state_dict"]\n```'
    write_card(source, folder, "A micro_step model in the layout of HAMburger (arXiv 2505.20438).", use)
    return [source.expected(folder)]


def _save(model: PreTrainedModel, source: SourceModel, folder: Path, adapter: Path | None = None) -> None:
    """Save a model, its tokenizer, and apart from it the adapter that it carries."""
    cast_weights(model, source.dtype)
    if adapter is None:
        model.save_pretrained(folder)
    else:
        _without_adapter(model).save_pretrained(folder)
        lora = model.peft_config["default"]
        lora.base_model_name_or_path = None  # else peft asks the hub for the size of the base's vocabulary
        model.save_pretrained(adapter)
        lora.base_model_name_or_path, lora.task_type = model.config._name_or_path, "CAUSAL_LM"
        lora.save_pretrained(adapter)
        (adapter / "generation_config.json").unlink()
        share_weights(adapter)
    cast_weights(model, torch.float32)
    source.tokenizer.name_or_path = ""
    source.tokenizer.save_pretrained(folder)
    share_weights(folder)


def _without_adapter(base: PreTrainedModel) -> PreTrainedModel:
    """Return a base as it was before it had an adapter, to be saved; the weights are shared."""
    weights = {
        name.replace(".base_layer", ""): weight for name, weight in base.state_dict().items() if "lora_" not in name
    }
    with torch.device("meta"):
        plain: PreTrainedModel = AutoModelForCausalLM.from_config(base.config)
    plain.load_state_dict(weights, strict=True, assign=True)
    plain.tie_weights()
    plain.generation_config = base.generation_config
    return plain


def _code(folder: str, plain: bool = False, own_code: bool = False) -> str:
    """Return lines of Python that use a folder, for its card."""
    trust = ", trust_remote_code=True" if own_code else ""
    lines = [
        *([] if plain or own_code else ["import micro_step"]),
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'model = AutoModelForCausalLM.from_pretrained("{folder}"{trust})',
        f'tokenizer = AutoTokenizer.from_pretrained("{folder}"{trust})',
    ]
    text = "\n".join(["```python", *lines, "```"])
    return text if plain else f"{text}\n\n`model.generate_segments` writes segment by segment."
