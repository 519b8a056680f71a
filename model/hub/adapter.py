"""Merge a LoRA adapter into a loaded model. Other kinds of peft adapters cannot be merged and are refused.

The model then reads text as the adapter was trained: with its tokenizer, chat template and vocabulary.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from model.access import local_path, need_fetching, not_offered
from model.checkpoint_files import ADAPTER, is_adapter, safetensors_problem
from model.errors import ModelBroken, ModelError, ModelNotFound, first_line
from model.git_lfs import pointer
from model.hub import huggingface
from model.hub.model_info import tokenizer_hash
from model.hub.transformers_io import has_tokenizer
from model.progress import Tell, silent
from model.reading.json_text import parse_json
from model.reading.regular_files import read_text

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def local_adapter(name: str) -> Path | None:
    """Return the folder of an adapter that is on this machine: a folder of that name, or a fetched one."""
    path = local_path(name)
    if path is not None and path.is_dir():
        return path
    of_hub = huggingface.is_repo_id(name) and huggingface.offered(name)
    snapshot = huggingface.snapshot(name) if of_hub else None
    return snapshot if snapshot is not None and (snapshot / "adapter_config.json").is_file() else None


def adapter_folder(name: str, progress: Tell | None = None) -> Path:
    """Return the folder of an adapter, fetched from the hub if it is not on this machine."""
    if (here := local_adapter(name)) is not None:
        folder = here
    elif not huggingface.offered(name):
        raise not_offered(name)
    elif not huggingface.is_repo_id(name):
        raise ModelNotFound(f"there is no adapter folder {name!r}, and it is not a hub id")
    else:
        need_fetching(name)
        if not huggingface.reachable():
            raise ModelNotFound(
                f"the adapter {name!r} is not on this machine, and the Hugging Face hub cannot be reached"
            )
        folder = huggingface.download(name, None, progress or silent, adapter=True)
    weights = folder / "adapter_model.safetensors"
    if (problem := pointer(folder / ADAPTER)) is not None:
        raise ModelBroken(f"the adapter {name} cannot be loaded: {problem}")
    try:
        kind = parse_json(read_text(folder / "adapter_config.json"))["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelBroken(f"{name} is not an adapter: it has no readable adapter_config.json") from error
    if kind != "LORA":
        raise ModelError(f"{name} is an adapter of type {kind}; only LORA adapters can be merged")
    if not weights.is_file():
        raise ModelBroken(f"the adapter {name} has no adapter_model.safetensors (pickled weights are not opened)")
    if (problem := safetensors_problem(weights)) is not None:
        raise ModelBroken(f"the adapter {name} cannot be loaded: {problem}")
    return folder


def adapter_base(folder: Path) -> tuple[str, str | None] | None:
    """Return the base that an adapter's folder names, and its revision; None if the folder holds no adapter."""
    file = folder / ADAPTER
    if not is_adapter(folder):
        return None
    try:
        config = parse_json(read_text(file))
        name, revision = config["base_model_name_or_path"], config.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelBroken(f"{folder.name} is not an adapter: it has no readable adapter_config.json") from error
    if not isinstance(name, str) or not name:
        raise ModelBroken(f"the adapter {folder.name} does not say which base it belongs to; name that as the model")
    return name, revision if isinstance(revision, str) else None


def adapter_tokenizer(
    base: PreTrainedTokenizerBase, folder: Path, read: Callable[[Path], PreTrainedTokenizerBase], held: Held
) -> tuple[PreTrainedTokenizerBase, tuple[str, ...]]:
    """Return the tokenizer and chat template that an adapter was trained with, and notes for the user about them.

    Raises:
        ModelError: its tokens differ from the base's, and it does not hold their embeddings.
        ModelBroken: its tokenizer is damaged.
    """
    notes = []
    if has_tokenizer(folder):
        own = read(folder)
        if tokenizer_hash(own) != tokenizer_hash(base):
            notes.append("the adapter's own tokenizer is used")
            notes += _renamed_tokens_note(base, own, folder, held)
        if not own.chat_template and base.chat_template:
            own.chat_template = base.chat_template
            notes.append("the adapter's tokenizer has no chat template; the base's is used")
        elif own.chat_template != base.chat_template:
            notes.append("the adapter's own chat template is used")
        return own, tuple(notes)
    template = _template(folder)
    if template is None or template == base.chat_template:
        return base, ()
    own = copy.deepcopy(base)
    own.chat_template = template
    return own, ("the adapter's own chat template is used, with the base's tokenizer",)


def _template(folder: Path) -> Any:
    try:
        if (file := folder / "chat_template.jinja").is_file():
            return read_text(file)
        if (file := folder / "tokenizer_config.json").is_file():
            template = parse_json(read_text(file)).get("chat_template")
            if isinstance(template, list):  # several, by name
                return {named["name"]: named["template"] for named in template}
            return template or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelBroken(f"the {file.name} of the adapter {folder.name} cannot be read: {error}") from error
    return None


def _renamed_tokens_note(
    base: PreTrainedTokenizerBase, own: PreTrainedTokenizerBase, folder: Path, held: Held
) -> list[str]:
    """Return a note if ids stand for other tokens than in the base and the adapter does not hold their embeddings."""
    if held.rows is not None:
        return []
    base_tokens, added = {i: token for token, i in base.get_vocab().items()}, base.get_added_vocab()
    renamed = [i for token, i in own.get_vocab().items() if i in base_tokens and base_tokens[i] != token]
    if any(base_tokens[i] not in added for i in renamed):
        raise ModelError(
            f"the tokenizer of the adapter {folder.name} gives {len(renamed):,} ids to other tokens than the base's,"
            " and the adapter holds no embeddings for them, so the two do not belong together"
        )
    if renamed:
        return [f"the adapter's tokenizer renames {len(renamed)} added tokens, and their embeddings are the base's"]
    return []


@dataclass(frozen=True)
class Held:
    """The part of the embeddings and the output layer that an adapter holds."""

    rows: int | None = None  # rows of the vocabulary that it was trained with; None: it holds none of the embeddings
    whole: bool = False  # True if it holds every row, not changes to rows of the base
    tokens: tuple[int, ...] = ()  # rows that it holds individually


def held_embeddings(model: PreTrainedModel, folder: Path) -> Held:
    """Return what an adapter's file holds of a model's embeddings and output layer."""
    config = parse_json(read_text(folder / "adapter_config.json"))
    single = config.get("trainable_token_indices") or ()
    tokens = [i for one in (single.values() if isinstance(single, dict) else [single]) for i in one]
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = tuple(f"{name}." for name, module in model.named_modules() if any(module is end for end in ends))
    rows, whole = [], False
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        for key in file.keys():  # noqa: SIM118 - file is not a mapping
            name = key.removeprefix("base_model.model.")
            if not name.startswith(names):
                continue
            shape = file.get_slice(key).get_shape()
            if name.endswith("lora_embedding_A"):
                rows.append(shape[1])
            elif name.endswith("lora_B.weight"):
                rows.append(shape[0])
            elif name.endswith("weight") and "lora_" not in name:
                rows.append(shape[0])
                whole = True
    if rows:
        return Held(max(rows), whole, tuple(tokens))
    return Held(max(tokens) + 1, False, tuple(tokens)) if tokens else Held()


def _resize(model: PreTrainedModel, folder: Path, held: Held) -> tuple[str, ...]:
    """Give the model the vocabulary that the adapter was trained with."""
    rows = int(model.get_input_embeddings().weight.shape[0])
    if held.rows is None or held.rows == rows or (held.tokens and not held.whole and held.rows < rows):
        return ()
    if held.rows > rows and not held.whole and not set(range(rows, held.rows)) <= set(held.tokens):
        raise ModelError(
            f"the adapter {folder.name} was trained with a vocabulary of {held.rows:,} rows, its base has {rows:,},"
            " and it does not hold the new ones: give a base with the vocabulary that the adapter was trained with"
        )
    model.resize_token_embeddings(held.rows, mean_resizing=False)
    return (f"the vocabulary was resized from {rows:,} rows to the {held.rows:,} that the adapter holds",)


def merge_adapter(model: PreTrainedModel, folder: Path, held: Held) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """Add the adapter's low-rank changes to the model's weights (Hu et al. 2021, arXiv 2106.09685).

    Returns:
        The model, and notes for the user.
    """
    from peft import PeftModel

    notes = _resize(model, folder, held)
    misfit = (
        f"the adapter {folder} does not fit the model {model.config.model_type} with {model.num_parameters():,} weights"
    )
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            adapted: Any = PeftModel.from_pretrained(model, folder, is_trainable=False, local_files_only=True)
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{misfit}: {first_line(error)}") from error
    if any("missing adapter keys" in str(warning.message) for warning in caught):
        raise ModelError(f"{misfit}: some of its layers have no weights in the adapter")
    notes = (*notes, *_untied(adapted.get_base_model()))
    merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
    return merged, notes


def _untied(model: PreTrainedModel) -> tuple[str, ...]:
    """Give the output layer weights of its own if an adapter changes one of two layers that share theirs.

    Merged into shared weights, a change to one layer would also change the other.
    """
    from torch import nn

    ends: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    inner = [getattr(end, "base_layer", end) for end in ends]
    if None in ends or inner[0].weight is not inner[1].weight:
        return ()
    if not any(hasattr(end, "lora_A") or hasattr(end, "lora_embedding_A") for end in ends):
        return ()
    inner[1].weight = nn.Parameter(inner[1].weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False
    return ("the adapter changes embeddings and output layer separately, so they no longer share weights",)
