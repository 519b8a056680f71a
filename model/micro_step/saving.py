"""Save only the modules that a micro_step model adds to its base, and load them onto that base again.

The folder holds `config.json` (with a reference to the base: name, revision, fingerprint), `generation_config.json` and
`micro_step.safetensors`: merger, micro decoder, stop head, and the LoRA adapter on the base if there is one. Loading
fetches the base and refuses any other, since the new modules mean nothing beside other weights.
"""

from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.atomic_files import atomic_folder
from model.checkpoint_files import safetensors_problem, share_weights
from model.errors import ExportError, ModelBroken, ModelError
from model.micro_step.base_source import find_base, name_of_base
from model.micro_step.configuration import MicroStepConfig
from model.micro_step.fingerprint import fingerprint
from model.micro_step.pretrained import MicroStepPreTrainedModel, move_weights
from model.reading.json_text import parse_json
from model.reading.regular_files import read_text

Model = TypeVar("Model", bound=MicroStepPreTrainedModel)

MODULES = "micro_step.safetensors"


def save_modules(
    model: MicroStepPreTrainedModel, folder: Path | str, base_name: str, revision: str | None, dtype: torch.dtype | None
) -> None:
    """Write a model without its base's weights, completely or not at all; an earlier save in the folder is replaced."""
    from safetensors.torch import save_file

    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / MODULES).is_file():
        raise ExportError(f"{folder} holds other files; choose a new folder")
    weights = {
        name: weight.detach().to(dtype or weight.dtype).cpu().contiguous()
        for name, weight in model.state_dict().items()
        if not name.startswith("base.") or "lora_" in name
    }
    reference = {"name": base_name, "revision": revision, "fingerprint": fingerprint(model.base)}
    config = MicroStepConfig.from_dict({**model.config.to_dict(), "base_reference": reference})
    config.architectures = [type(model).__name__]
    try:
        with atomic_folder(folder) as part:
            save_file(weights, part / MODULES, metadata={"format": "pt"})
            config.save_pretrained(part)
            model.generation_config.save_pretrained(part)
            share_weights(part)
    except OSError as error:
        raise ExportError(f"{folder} cannot be written: {error.strerror}") from error


def base_reference(folder: Path | str) -> dict[str, Any] | None:
    """Return the reference to the base in a folder that `save_modules` wrote; None for any other folder."""
    folder = Path(folder)
    if not (folder / MODULES).is_file() or not (folder / "config.json").is_file():
        return None
    try:
        reference = parse_json(read_text(folder / "config.json"))["base_reference"]
        return {
            "name": name_of_base(str(reference["name"]), folder),
            "revision": reference["revision"],
            "fingerprint": str(reference["fingerprint"]),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelBroken(f"the config.json of {folder} does not say which base it belongs to") from error


def load_modules(
    cls: type[Model],
    folder: Path | str,
    base: PreTrainedModel | None = None,
    dtype: torch.dtype | str | None = None,
    merge_adapter: bool = True,
    allow_other_base: bool = False,
    **options: Any,
) -> Model:
    """Load saved modules onto their base.

    Args:
        cls: the model's class.
        folder: a folder that `save_modules` wrote.
        base: the base, if it is loaded already; it is shared, and an adapter is put into it. None: it is fetched.
        dtype: dtype of the whole model; None or "auto": the base's own.
        merge_adapter: fold the adapter into the base's weights, for speed; False to continue training. An adapter that
            is off for prompts stays apart.
        allow_other_base: accept a base with other weights than the one it was trained with.
        options: options of the base's `from_pretrained`: attn_implementation, device_map, ...
    """
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM  # not above: see micro_step/auto_classes.py

    folder = Path(folder)
    if isinstance(dtype, str):
        dtype = None if dtype == "auto" else getattr(torch, dtype)
    reference = base_reference(folder)
    assert reference is not None
    if (problem := safetensors_problem(folder / MODULES)) is not None:
        raise ModelBroken(f"{folder} cannot be loaded: {problem}")
    config = MicroStepConfig.from_pretrained(folder)
    if base is None:
        source = find_base(reference["name"], reference["revision"])
        base = AutoModelForCausalLM.from_pretrained(source, local_files_only=True, dtype=dtype or "auto", **options)
    _check_shape(folder, config, base)
    actual = fingerprint(base)
    if actual != reference["fingerprint"] and not allow_other_base:
        raise ModelError(
            f"{folder.name} was trained on {reference['name']} with weights {reference['fingerprint'][:12]}; the base"
            f" given ({base.config.name_or_path or base.config.model_type}) has {actual[:12]}. Give that base, or pass"
            " allow_other_base=True to try this one"
        )
    model = cls(config, base)
    adapter = config.adapter
    if adapter is not None:
        model.add_adapter_to_base(**adapter)
    weights: dict[str, Tensor] = load_file(folder / MODULES)
    expected = {name for name in model.state_dict() if not name.startswith("base.") or "lora_" in name}
    if set(weights) != expected:
        different = sorted(set(weights) ^ expected)
        raise ModelBroken(
            f"{folder} does not fit its configuration: {', '.join(different[:3])} and {len(different)} in all differ"
        )
    try:
        model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelBroken(f"{folder} does not fit its configuration: {str(error).splitlines()[-1].strip()}") from error
    if adapter is not None and merge_adapter and config.prompt_adapter:
        model.merge_adapter()
    move_weights(model, base.device, dtype or base.dtype)
    if (folder / "generation_config.json").is_file():
        from transformers import GenerationConfig

        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.eval()
    return model


def _check_shape(folder: Path, config: MicroStepConfig, base: PreTrainedModel) -> None:
    theirs, ours = base.config.get_text_config(), config.base_config.get_text_config()
    for name in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        if getattr(theirs, name) != getattr(ours, name):
            raise ModelError(
                f"{folder.name} was trained on a base with {name} {getattr(ours, name)}; the base given has"
                f" {getattr(theirs, name)}"
            )
