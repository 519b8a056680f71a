"""A trained tuned lens (Belrose et al. 2023, arXiv 2303.08112): an affine map for each layer's states.

The files are those of the package tuned-lens: a folder with `config.json` and `params.pt`, or the same tensors as
`params.safetensors`. Map i turns state h after i layers into h + W h + b. `params.pt` is read as tensors alone: nothing
in it is run.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.forward import text_config
from model.causal_lm.layer_states import layer_count
from model.errors import ModelBroken, ModelError, first_line

PARAMETERS = ("params.safetensors", "params.pt")
_NAME = re.compile(r"(?:layer_translators\.)?(0|[1-9][0-9]{0,3})\.(weight|bias)")


@dataclass(frozen=True)
class TunedLens:
    """L affine maps, for the states after 0 .. L - 1 layers."""

    weight: Tensor  # [L, d, d] float32
    bias: Tensor  # [L, d] float32

    def __post_init__(self) -> None:
        layers, width = self.bias.shape
        if self.weight.shape != (layers, width, width):
            raise ValueError(f"weight must be [{layers}, {width}, {width}], got {list(self.weight.shape)}")

    def translate(self, layer: int, states: Tensor) -> Tensor:
        """Return h + W h + b of states [C, d] after `layer` layers, in their own dtype."""
        h, weight, bias = states.float(), self.weight[layer], self.bias[layer]
        return (h + torch.addmm(bias.to(h.device), h, weight.to(h.device).T)).to(states.dtype)

    def check_fits(self, model: PreTrainedModel, name: str) -> None:
        """Raise ModelError if the lens is of a model of another width or number of layers."""
        own, theirs = (len(self.bias), self.bias.shape[1]), (layer_count(model), int(text_config(model).hidden_size))
        if own != theirs:
            raise ModelError(
                f"the tuned lens has {own[0]} layers of width {own[1]}, but {name} has {theirs[0]} of width"
                f" {theirs[1]}; give the lens that was trained for this model"
            )


def lens_file(path: Path) -> Path:
    """Return the file that holds the tensors: the path itself, or the one in a folder.

    Raises:
        ModelError: there is none.
    """
    if path.is_file():
        return path
    found = next((path / name for name in PARAMETERS if (path / name).is_file()), None)
    if found is None:
        raise ModelError(f"{path} is no tuned lens: give a folder that holds {' or '.join(PARAMETERS)}, or such a file")
    return found


def read_lens(content: bytes, path: Path) -> TunedLens:
    """Read the content of a lens's file.

    Raises:
        ModelBroken: it is not a tuned lens, or its tensors do not fit together.
    """
    tensors = _tensors(content, path)
    found: dict[str, dict[int, Tensor]] = {"weight": {}, "bias": {}}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(str(name))
        if match is None or not _dense(tensor):
            raise ModelBroken(f"{path} is no tuned lens: it holds {name!r} beside weights and biases of layers")
        found[match[2]][int(match[1])] = tensor
    if sum(tensor.numel() for tensor in tensors.values()) > len(content):  # views that share their numbers
        raise ModelBroken(f"{path} is no tuned lens: its tensors hold more numbers than the file")
    weights, biases = found["weight"], found["bias"]
    if not weights or sorted(weights) != list(range(len(weights))) or set(biases) - set(weights):
        raise ModelBroken(f"{path} is no tuned lens: it needs a weight for each layer, named 0.weight, 1.weight, ...")
    width = len(weights[0]) if weights[0].ndim else 0
    shapes = {tuple(each.shape) for each in weights.values()}, {tuple(each.shape) for each in biases.values()}
    if shapes[0] != {(width, width)} or shapes[1] - {(width,)}:
        raise ModelBroken(f"the tensors of {path} do not have the shapes [d, d] and [d] of a tuned lens")
    bias = [biases.get(layer, torch.zeros(width)).detach().float() for layer in range(len(weights))]
    weight = [weights[layer].detach().float() for layer in range(len(weights))]
    lens = TunedLens(torch.stack(weight), torch.stack(bias))
    if not bool(lens.weight.isfinite().all() and lens.bias.isfinite().all()):
        raise ModelBroken(f"the tuned lens {path} holds numbers that are not finite: the file is damaged")
    return lens


def _dense(tensor: object) -> bool:
    """Whether it is a tensor of plain numbers in memory: not sparse, quantised, complex, or without content."""
    return (
        isinstance(tensor, Tensor)
        and tensor.layout == torch.strided
        and tensor.is_floating_point()
        and tensor.device.type == "cpu"
    )


def _tensors(content: bytes, path: Path) -> Mapping[Any, Any]:
    try:
        if path.suffix == ".safetensors":
            return load_safetensors(content)
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise ModelBroken(f"{path} cannot be read as a tuned lens: {first_line(error)}") from None
    except Exception:  # noqa: BLE001 - torch raises anything for such a file, and advises to run what it holds
        raise ModelBroken(
            f"{path} cannot be read as tensors alone, so nothing in it was opened: it is damaged, or it holds other"
            " things, which could run code"
        ) from None
    if not isinstance(loaded, Mapping):
        raise ModelBroken(f"{path} is no tuned lens: it does not hold tensors by name")
    return loaded
