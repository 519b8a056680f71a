"""A view of a model whose linear layers are quick for a few rows, sharing all weights with the model.

Decoding on a processor feeds a linear layer a row a prompt, a few for a draft under check. In float32, MKL multiplies
x W^T for 2 rows in nearly twice the time of one, and W x^T in the time of one, the weights being what takes long to
read; up to a few dozen rows W x^T is the quicker one, or as quick (benchmarks/README.md has the times).
"""

from __future__ import annotations

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST = 32  # rows

Module = TypeVar("Module", bound=nn.Module)


class SmallBatchLinear(nn.Linear):
    """A linear layer, W x^T where that is quicker."""

    def forward(self, x: Tensor) -> Tensor:
        """[.., out] of [.., in]."""
        rows = x.numel() // x.shape[-1]
        if not 1 < rows <= MOST or x.dtype != torch.float32:
            return F.linear(x, self.weight, self.bias)
        out = torch.mm(self.weight, x.reshape(rows, -1).t()).t().contiguous()
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1)


def with_fast_linear(model: Module) -> Module:
    """A shallow copy of a model for decoding, where one is of use: in float32 on a processor. Else the model."""
    weight = next(model.parameters())
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or model.training:
        return model
    return cast(Module, _copied(model, {}))


def _copied(module: nn.Module, done: dict[int, nn.Module]) -> nn.Module:
    if id(module) not in done:
        out = done[id(module)] = copy.copy(module)
        out._modules = {name: None if m is None else _copied(m, done) for name, m in module._modules.items()}
        if type(module) is nn.Linear:
            out.__class__ = SmallBatchLinear
    return done[id(module)]
