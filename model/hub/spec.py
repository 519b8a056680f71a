"""What a user names, a model and how to load it; what loading it gives; and which device that means here."""

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
    """What a user names; hashable, so that it can be a cache key.

    Raises:
        ModelError: an option has a value that does not exist.
    """

    name: str
    """Catalog name, hub id, model folder, `.gguf` file or folder that holds one."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    adapter: str | None = None
    """Hub id or folder of a LoRA adapter, merged into the weights after loading."""
    dtype: Dtype = "auto"
    """auto: float32 on the CPU, the checkpoint's own on cuda and mps."""
    device: str = "auto"
    """auto: cuda, else mps, else cpu."""
    attn_implementation: str | None = None
    """sdpa, eager, flash_attention_2, ...; None leaves the choice to transformers."""
    quantization: Quantization = "none"
    """8bit and 4bit need the bitsandbytes package."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    tokenizer: str | None = None
    """Catalog name, hub id or folder of the tokenizer of a model that comes without one."""

    def __post_init__(self) -> None:
        for field, value, known in (
            ("dtype", self.dtype, _DTYPES),
            ("quantization", self.quantization, ("none", "8bit", "4bit")),
        ):
            if value not in known:
                raise ModelError(f"unknown {field} {value!r}; there are {', '.join(known)}")


@dataclass(frozen=True, eq=False, repr=False)
class LoadedModel(ShortRepr):
    """A model in eval mode on its device, without gradients, and its tokenizer. Shared by users: holds no run."""

    spec: ModelSpec
    facts: ModelInfo
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def resolve_device(name: str) -> torch.device:
    """The device of that name; "auto" takes cuda, else mps, else cpu.

    Raises:
        ModelError: no such device exists, or it is not on this machine.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"unknown device {name!r}; give auto, cpu, cuda, cuda:N or mps") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ModelError(f"device {name!r} is not used here; give auto, cpu, cuda, cuda:N or mps")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"device {name!r} was asked for, and this machine has {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ModelError("device 'mps' was asked for, and this machine has none")
    return device
