"""A copy of a model, sharing all weights, whose layers are fast for a few rows.

Decoding on a CPU feeds a linear layer one row per prompt, and a few rows for a draft under check. In float32, MKL takes
nearly twice as long to compute x W^T for 2 rows as for 1, while W x^T takes little more than for one, since reading the
weights dominates. With several threads W x^T is at least as fast up to a few dozen rows, with one thread up to five
(times in benchmarks/README.md).

A draft under check has a mask, and with a mask transformers' attention repeats grouped keys and values for every head:
it copies the whole cache in every layer. On a CPU torch's kernel takes them as they are.
"""

import copy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

MAX_ROWS, MAX_ROWS_OF_ONE_THREAD = 32, 5
GROUPED = "sdpa_grouped"  # name of the attention below among transformers' own

Module = TypeVar("Module", bound=nn.Module)


class SmallBatchLinear(nn.Linear):
    """A linear layer that computes W x^T where that is faster."""

    def forward(self, x: Tensor) -> Tensor:
        """Return [.., out] for [.., in]."""
        rows = x.numel() // x.shape[-1]
        most = MAX_ROWS_OF_ONE_THREAD if torch.get_num_threads() == 1 else MAX_ROWS
        if not 1 < rows <= most or x.dtype != torch.float32:
            return F.linear(x, self.weight, self.bias)
        columns = x.reshape(rows, -1).t() if rows != 3 else F.pad(x.reshape(3, -1), (0, 0, 0, 1)).t()  # 4 are faster
        out = torch.mm(self.weight, columns)[:, :rows].t().contiguous()
        if self.bias is not None:
            out += self.bias
        return out.view(*x.shape[:-1], -1)


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' `sdpa` does, without repeating grouped keys and values where there is a mask.

    Args:
        module: the attention layer.
        query: [B, H, n, D].
        key: [B, G, N, D], where G divides H.
        value: [B, G, N, D].
        attention_mask: [B, 1, n, N], or None.
        scaling: of the scores.
        options: transformers' others.
    """
    grouped = attention_mask is not None and query.shape[2] > 1 and query.shape[1] > key.shape[1]
    if not grouped or options.get("position_bias") is not None or options.get("softcap") is not None:
        return cast(
            "tuple[Tensor, None]",
            sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options),
        )
    out = F.scaled_dot_product_attention(query, key, value, attention_mask, scale=scaling, enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(GROUPED, grouped_attention)


def with_fast_linear(model: Module) -> Module:
    """Return a shallow copy of a model with fast linear layers and attention for decoding.

    The copy helps only on a CPU, its linear layers only in float32; any other model is returned as it is.
    """
    if next(model.parameters()).device.type != "cpu" or model.training:
        return model
    return cast(Module, _copied(model, {}, {}))


def _copied(module: nn.Module, done: dict[int, nn.Module], configs: dict[int, Any]) -> nn.Module:
    if id(module) not in done:
        out = done[id(module)] = copy.copy(module)
        out._modules = {name: None if m is None else _copied(m, done, configs) for name, m in module._modules.items()}
        if type(module) is nn.Linear:
            out.__class__ = SmallBatchLinear
        config = getattr(module, "config", None)
        if hasattr(module, "num_key_value_groups") and getattr(config, "_attn_implementation", None) == "sdpa":
            if id(config) not in configs:  # the body keeps its own, by which it builds the mask
                configs[id(config)] = copy.copy(config)
                configs[id(config)]._attn_implementation = GROUPED
            out.config = configs[id(config)]
    return done[id(module)]
