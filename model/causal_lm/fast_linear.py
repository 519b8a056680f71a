"""A copy of a model, sharing all weights, whose linear layers are fast for a few rows.

Decoding on a CPU feeds a linear layer one row per prompt, and a few rows for a draft under check. In float32, MKL takes
nearly twice as long to compute x W^T for 2 rows as for 1, while W x^T takes the time of one, since reading the weights
dominates. Up to a few dozen rows W x^T is at least as fast (times in benchmarks/README.md).
"""

import copy
from typing import TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MAX_ROWS = 32

Module = TypeVar("Module", bound=nn.Module)


class SmallBatchLinear(nn.Linear):
    """A linear layer that computes W x^T where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [.., out] for [.., in]."""
        rows = x.numel() // x.shape[-1]
        if not 1 < rows <= MAX_ROWS or x.dtype != torch.float32:
            return F.linear(x, self.weight, self.bias)
        out = torch.mm(self.weight, x.reshape(rows, -1).t()).t().contiguous()
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1)


def with_fast_linear(model: Module) -> Module:
    """Return a shallow copy of a model with fast linear layers for decoding.

    The copy helps only in float32 on a CPU; any other model is returned as it is.
    """
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
