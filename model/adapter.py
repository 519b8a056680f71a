"""Merge a LoRA adapter into a loaded model. Other kinds of peft adapters are refused, as they cannot be merged."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model import hub
from model.cache import Progress, silent
from model.errors import ModelBroken, ModelError, ModelNotFound
from model.folder import ADAPTER, is_adapter, safetensors_problem
from model.lfs import pointer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def adapter_folder(name: str, progress: Progress | None = None) -> Path:
    """The folder of an adapter, fetched from the hub if it is not on this machine.

    Raises:
        ModelNotFound: nothing of that name can be had.
        ModelBroken: there is something, but no readable LoRA adapter.
    """
    try:
        path = Path(name).expanduser()
    except RuntimeError:  # the home folder of a user that there is not
        path = Path(name)
    if path.is_dir():
        folder = path.resolve()
    elif not hub.is_repo_id(name):
        raise ModelNotFound(f"there is no adapter folder {name!r}, and it is no hub id")
    elif (there := hub.snapshot(name)) is not None and (there / "adapter_config.json").is_file():
        folder = there
    elif hub.reachable():
        folder = hub.download(name, None, progress or silent, adapter=True)
    else:
        raise ModelNotFound(f"the adapter {name!r} is not on this machine, and the Hugging Face hub is not reachable")
    weights = folder / "adapter_model.safetensors"
    if (wrong := pointer(folder / ADAPTER)) is not None:
        raise ModelBroken(f"the adapter {name} cannot be loaded: {wrong}")
    try:
        kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelBroken(f"{name} is no adapter: it has no readable adapter_config.json") from error
    if kind != "LORA":
        raise ModelError(f"{name} is an adapter of type {kind}; only LORA adapters can be merged")
    if not weights.is_file():
        raise ModelBroken(f"the adapter {name} has no adapter_model.safetensors (pickled weights are not opened)")
    if (wrong := safetensors_problem(weights)) is not None:
        raise ModelBroken(f"the adapter {name} cannot be loaded: {wrong}")
    return folder


def adapter_base(folder: Path) -> tuple[str, str | None] | None:
    """The base that the folder of an adapter names, and its revision; None for a folder of anything else.

    Raises:
        ModelBroken: it is an adapter, but names no base.
    """
    file = folder / ADAPTER
    if not is_adapter(folder):
        return None
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        name, revision = said["base_model_name_or_path"], said.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelBroken(f"{folder.name} is no adapter: it has no readable adapter_config.json") from error
    if not isinstance(name, str) or not name:
        raise ModelBroken(f"the adapter {folder.name} does not say which base it belongs to; name that as the model")
    return name, revision if isinstance(revision, str) else None


def merge_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Add the adapter's low-rank changes to the model's weights (Hu et al. 2021, arXiv 2106.09685).

    Raises:
        ModelError: the adapter was trained for another model.
    """
    from peft import PeftModel

    misfit = (
        f"the adapter {folder} does not fit the model {model.config.model_type} with {model.num_parameters():,} weights"
    )
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            adapted: Any = PeftModel.from_pretrained(model, folder, is_trainable=False, local_files_only=True)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{misfit}: {str(error).strip().splitlines()[0]}") from error
    if any("missing adapter keys" in str(warning.message) for warning in said):
        raise ModelError(f"{misfit}: some of its layers have no weights in the adapter")
    merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return merged
