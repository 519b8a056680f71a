"""The model that a user names with its options, the loaded model, and the device that a name means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from model.errors import ModelError
from model.hub.model_info import ModelInfo
from model.short_repr import ShortRepr

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Quantization = Literal["none", "8bit", "4bit"]

_DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ModelSpec:
    """A model and its loading options; hashable, so it can be a cache key."""

    name: str  # catalog name, hub id, model folder, `.gguf` file or folder that holds one
    revision: str | None = None  # branch, tag or commit on the hub
    adapter: str | None = None  # hub id or folder of a LoRA adapter, merged into the weights after loading
    dtype: Dtype = "auto"  # auto: float32 on the CPU, the checkpoint's own on cuda and mps
    device: str = "auto"  # auto: cuda, else mps, else cpu
    attn_implementation: str | None = None  # sdpa, eager, flash_attention_2, ...; None: transformers chooses
    quantization: Quantization = "none"  # 8bit and 4bit need the bitsandbytes package
    trust_remote_code: bool = False  # run Python code that comes with the model
    tokenizer: str | None = None  # catalog name, hub id or folder of the tokenizer, for a model that comes without one

    def __post_init__(self) -> None:
        for field, value, known in (
            ("dtype", self.dtype, _DTYPES),
            ("quantization", self.quantization, ("none", "8bit", "4bit")),
        ):
            if value not in known:
                raise ModelError(f"unknown {field} {value!r}; choose from {', '.join(known)}")


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel(ShortRepr):
    """A model in eval mode on its device, without gradients, and its tokenizer. Shared: it holds no run's state."""

    spec: ModelSpec
    facts: ModelInfo
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    content: tuple[str, ...] = ()  # hashes of the files that it was read from (`content_of`)


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; "auto" takes cuda, else mps, else cpu."""
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"unknown device {name!r}; give auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"device {name!r} is not supported; give auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {name!r} was requested, but this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps' was requested, but this machine has none")
    return device
