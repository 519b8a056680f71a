"""HAMburger's published checkpoints (arXiv 2505.20438): their names and settings, read and written.

Such a file is a pickle of Lightning's with a `state_dict`, whose base is a llama in transformers' names. It does not
say how many attention heads there are, or which layers the micro decoder reads, so these are as in the published code.
Its segments take the position of their last token, as here; the published code writes with the position after that.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.errors import ModelBroken, ModelError, first_line
from model.micro_step.modeling import MicroStepForCausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FILE = "hamburger.ckpt"
SETTINGS: dict[str, Any] = {
    "context_layers": [4, 8, 12, 16],
    "merger": "attention",
    "merger_heads": 64,
    "merger_bias": True,
    "merge_layer": 0,
    "micro_layers": 4,
    "micro_norm": False,
    "stop_head": True,
    "stop_layers": 3,
    "stop_state": "before",
    "decoding": "merged",
}
_EMBEDDING = "comp_embedder.embedding.weight"  # the base's, once more
_NAMES = (  # of ours, and theirs
    ("base.", "model."),
    ("merger.position", "comp_embedder.merger.pos"),
    ("merger.query.", "comp_embedder.merger.q_proj."),
    ("merger.key.", "comp_embedder.merger.k_proj."),
    ("merger.value.", "comp_embedder.merger.v_proj."),
    ("merger.out.", "comp_embedder.out_proj."),
    ("micro.layers.layers.", "micro_step_decoder.decoders."),
    ("stop.", "micro_step_decoder.stop_head."),
)
_IGNORED = re.compile(r"teacher\.|.*rotary_emb\.|" + re.escape(_EMBEDDING))


def read_hamburger(path: Path) -> dict[str, Tensor]:
    """Return the weights of a file under our names. No code of the pickle runs (`weights_only`).

    Raises:
        ModelBroken: it is no such file.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state = held["state_dict"]
        found = {_renamed(name, 1, 0): weight for name, weight in state.items() if not _IGNORED.match(name)}
    except OSError as error:
        raise ModelBroken(f"{path} cannot be read: {error.strerror}") from error
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ModelBroken(f"{path} is no checkpoint of HAMburger: {first_line(error)}") from error
    return found


def model_of(
    weights: dict[str, Tensor], base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> MicroStepForCausalLM:
    """Put the weights of a file around a base, whose own are replaced by the file's.

    Raises:
        ModelError: the base is of another shape.
    """
    position = weights.get("merger.position")
    if base.config.model_type != "llama" or position is None:
        raise ModelError("a checkpoint of HAMburger has a llama as its base, and a merger")
    settings = {"max_segment_length": position.shape[0], "micro_start": "random", **SETTINGS}
    model = MicroStepForCausalLM.from_base(base, tokenizer, **settings)
    try:
        missing, unexpected = model.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        raise ModelError(
            f"{base.config._name_or_path} is not its base: {str(error).splitlines()[-1].strip()}"
        ) from error
    if tied := model.config.tie_word_embeddings:
        missing = [name for name in missing if name != "base.lm_head.weight"]
    if missing or unexpected:
        raise ModelError(f"the checkpoint does not fit its base: {(*missing, *unexpected)[0]} is in one of them alone")
    head = weights.get("base.lm_head.weight")
    if tied and head is not None and not torch.equal(head, weights["base.model.embed_tokens.weight"]):
        raise ModelError("the checkpoint has a head of its own, but its base shares the embeddings' weights")
    model.eval().requires_grad_(False)
    return model


def write_hamburger(model: MicroStepForCausalLM, path: Path, dtype: torch.dtype) -> None:
    """Write the weights of a model in the published layout, which must be able to hold it.

    Raises:
        ModelError: it is not able to.
    """
    config = model.config
    if config.base_config.model_type != "llama":
        raise ModelError(f"HAMburger's base is a llama, and this one is of family {config.base_config.model_type}")
    wrong = [name for name, value in SETTINGS.items() if getattr(config, name) != value]
    if wrong:
        said = ", ".join(f"{name} {getattr(config, name)} (not {SETTINGS[name]})" for name in wrong)
        raise ModelError(f"HAMburger's layout cannot hold this model: it has {said}")
    state = {_renamed(name, 0, 1): weight.to(dtype) for name, weight in model.state_dict().items()}
    state[_EMBEDDING] = state["model.model.embed_tokens.weight"]
    torch.save({"state_dict": state}, path)


def _renamed(name: str, have: int, want: int) -> str:
    for pair in _NAMES:
        if name.startswith(pair[have]):
            return pair[want] + name[len(pair[have]) :]
    raise ValueError(f"there is no place for {name}")
