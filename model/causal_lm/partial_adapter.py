"""A LoRA adapter that acts only on some positions: on what a model writes, and not on the prompt that it was given.

An adapter adds B(A(x)) to the output of a linear layer, position by position. Hooks set that to zero at the positions
where the adapter is off, so what the layer computes there is the base's own, bit for bit. Which positions these are
belongs to the thread that runs the model, since threads share models.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from model.causal_lm.parts import body, layers_of
from model.errors import ModelError

_ON: ContextVar[Tensor | bool] = ContextVar("_ON", default=True)  # [B, n] bool, or for all positions


@contextmanager
def adapter_acting(on: Tensor | bool) -> Iterator[None]:
    """Let the adapter of a model that was made `partial` act at these positions [B, n] only, within the block.

    Args:
        on: bool for each position that is read, or for all of them. Other models ignore it.
    """
    token = _ON.set(on)
    try:
        yield
    finally:
        _ON.reset(token)


def make_partial(base: Any) -> None:
    """Make the adapter of a base heed `adapter_acting`.

    Raises:
        ModelError: it changes more than the linear layers of the base's layers by a plain product of two matrices.
    """
    inside = {id(module) for layer in layers_of(body(base)) for module in layer.modules()}
    for name, module in base.named_modules():
        if not hasattr(module, "lora_A"):
            continue
        if id(module) not in inside or len(module.lora_embedding_A) or module.lora_variant:
            raise ModelError(
                f"the adapter changes {name.rpartition('.')[2]} in a way that cannot be off for a prompt alone: name"
                " linear layers of the base's layers only, without DoRA, or leave out prompt_adapter"
            )
        for adapter in module.lora_B.values():
            adapter.register_forward_hook(_off_where_asked)


def _off_where_asked(_: nn.Module, __: Any, added: Tensor) -> Tensor | None:
    on = _ON.get()
    if isinstance(on, bool):
        return None if on else torch.zeros_like(added)
    return added * on.reshape(*added.shape[:-1], 1).to(added.dtype)
