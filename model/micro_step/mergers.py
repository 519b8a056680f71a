"""Mergers: the embeddings of a segment's tokens become one embedding, which the base reads as one macro step.

e_i are the token embeddings of a segment of 2 to M tokens, p_i a learned position. Segments of one token pass
unchanged, and never come here. Every merger is the mean plus a correction that is zero at the start, so that a fresh
one is the mean. Above layer k = `merge_layer` > 0, e_i are the tokens' states after that layer, and the last token's
state stands in the mean's place. Knows nothing about models or batches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.micro_step.configuration import MicroStepConfig


class MeanMerger(nn.Module):
    """mean_i e_i, or the last of the states; the others add to it."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__()
        self.from_last = config.merge_layer > 0

    def forward(self, e: Tensor, there: Tensor) -> Tensor:  # [Q, M, d], [Q, M] -> [Q, d]
        """Merge Q segments; `there` is False where a segment has no token."""
        kept = there[..., None]
        mean = (e * kept).sum(1) / kept.sum(1)
        start = e[torch.arange(len(e), device=e.device), there.sum(1) - 1] if self.from_last else mean
        return start + self.correction(e, there, mean)

    def correction(self, e: Tensor, there: Tensor, mean: Tensor) -> Tensor:
        """[Q, d] what is added to the mean."""
        return torch.zeros_like(mean)


class ResidualSoftmaxMerger(MeanMerger):
    """O(sum_i g_i * e_i), g_i a softmax over the segment's tokens, each dimension on its own, of MLP([e_i; p_i])."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.position = nn.Parameter(torch.randn(config.max_segment_length, d // 2) * 0.02)
        self.inner = nn.Linear(d + d // 2, d)
        self.gate = nn.Linear(d, d)
        self.out = nn.Linear(d, d, bias=False)
        nn.init.zeros_(self.out.weight)

    def correction(self, e: Tensor, there: Tensor, mean: Tensor) -> Tensor:
        """See `MeanMerger`."""
        gate = self.gate(F.silu(self.inner(_placed(e, self.position))))
        weight = gate.masked_fill(~there[..., None], float("-inf")).softmax(1)
        out: Tensor = self.out((weight * e).sum(1))
        return out


class AttentionMerger(MeanMerger):
    """Attention with the mean as query, over keys and values from [e_i; p_i], several heads."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.heads = config.merger_heads
        self.position = nn.Parameter(torch.randn(config.max_segment_length, d // 2) * 0.02)
        self.query = nn.Linear(d, d, bias=False)
        self.key = nn.Linear(d + d // 2, d, bias=False)
        self.value = nn.Linear(d + d // 2, d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        nn.init.zeros_(self.out.weight)

    def correction(self, e: Tensor, there: Tensor, mean: Tensor) -> Tensor:
        """See `MeanMerger`."""
        placed = _placed(e, self.position)
        query, key, value = self.query(mean)[:, None], self.key(placed), self.value(placed)
        out: Tensor = self.out(_attend(query, key, value, there, self.heads)[:, 0])
        return out


class LocalEncoderMerger(MeanMerger):
    """A small transformer over [e_i; p_i] that sees the whole segment, pooled by cross-attention from the mean."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.heads = config.merger_heads
        self.position = nn.Parameter(torch.randn(config.max_segment_length, d // 2) * 0.02)
        self.inner = nn.Linear(d + d // 2, d)
        layer = nn.TransformerEncoderLayer(
            d, config.merger_heads, 2 * d, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.merger_layers, enable_nested_tensor=False)
        self.query = nn.Linear(d, d, bias=False)
        self.key_value = nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        nn.init.zeros_(self.out.weight)

    def correction(self, e: Tensor, there: Tensor, mean: Tensor) -> Tensor:
        """See `MeanMerger`."""
        read = self.layers(self.inner(_placed(e, self.position)), src_key_padding_mask=~there)
        key, value = self.key_value(read).chunk(2, -1)
        out: Tensor = self.out(_attend(self.query(mean)[:, None], key, value, there, self.heads)[:, 0])
        return out


def build_merger(config: MicroStepConfig) -> MeanMerger:
    """The merger that a configuration names, fresh; where only the cache is folded, one without weights."""
    if config.merger == "mean" or config.folds_cache:
        return MeanMerger(config)
    classes = {
        "residual_softmax": ResidualSoftmaxMerger,
        "attention": AttentionMerger,
        "local_encoder": LocalEncoderMerger,
    }
    return classes[config.merger](config)


def _placed(e: Tensor, position: Tensor) -> Tensor:
    """[Q, m, d + d/2] each embedding with the position of its slot."""
    return torch.cat([e, position[: e.shape[1]].expand(e.shape[0], -1, -1).to(e.dtype)], -1)


def _attend(query: Tensor, key: Tensor, value: Tensor, there: Tensor, heads: int) -> Tensor:
    """[Q, L, d] of queries [Q, L, d] over keys and values [Q, M, d]."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])
    return mixed.transpose(1, 2).flatten(2)
