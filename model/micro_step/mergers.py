"""Mergers: they turn the embeddings of a segment's tokens into one embedding, which the base reads as one macro step.

e_i are the token embeddings of a segment of 2 to M tokens, p_i a learned position. Segments of one token pass unchanged
and never reach a merger. Every merger is the mean plus a correction that is zero at the start, so a fresh merger is the
mean. Above layer k = `merge_layer` > 0, e_i are the tokens' states after that layer, and the last token's state
replaces the mean. This module knows nothing about models or batches.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.micro_step.configuration import MicroStepConfig


class MeanMerger(nn.Module):
    """mean_i e_i, or the last state; the other mergers add a correction to it."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__()
        self.from_last = config.merge_layer > 0

    def forward(self, embeds: Tensor, valid: Tensor, before: Tensor | None = None) -> Tensor:
        """Return [Q, d] for Q segments.

        Args:
            embeds: [Q, M, d].
            valid: [Q, M] bool, False where a segment has no token.
            before: [Q, w, d] embeddings of the tokens before each segment, for a merger that reads them.
        """
        kept = valid[..., None]
        mean = (embeds * kept).sum(1) / kept.sum(1)
        start = embeds[torch.arange(len(embeds), device=embeds.device), valid.sum(1) - 1] if self.from_last else mean
        return start + self.correction(embeds, valid, mean, before)

    def correction(self, embeds: Tensor, valid: Tensor, mean: Tensor, before: Tensor | None) -> Tensor:
        """Return [Q, d], the term added to the mean."""
        return torch.zeros_like(mean)


class ResidualSoftmaxMerger(MeanMerger):
    """O(sum_i g_i * e_i), g_i a softmax over the segment's tokens, per dimension, of MLP([e_i; p_i])."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.position = nn.Parameter(torch.randn(config.max_segment_length, d // 2) * 0.02)
        self.inner = nn.Linear(d + d // 2, d)
        self.gate = nn.Linear(d, d)
        self.out = nn.Linear(d, d, bias=False)
        nn.init.zeros_(self.out.weight)

    def correction(self, embeds: Tensor, valid: Tensor, mean: Tensor, before: Tensor | None) -> Tensor:
        gate = self.gate(F.silu(self.inner(_with_position(embeds, self.position))))
        weight = gate.masked_fill(~valid[..., None], float("-inf")).softmax(1)
        out: Tensor = self.out((weight * embeds).sum(1))
        return out


class AttentionMerger(MeanMerger):
    """Attention with the mean as query, over keys and values from [e_i; p_i], with several heads."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.heads = config.merger_heads
        self.position = nn.Parameter(torch.randn(config.max_segment_length, d // 2) * 0.02)
        self.query = nn.Linear(d, d, bias=config.merger_bias)
        self.key = nn.Linear(d + d // 2, d, bias=config.merger_bias)
        self.value = nn.Linear(d + d // 2, d, bias=config.merger_bias)
        self.out = nn.Linear(d, d, bias=config.merger_bias)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def correction(self, embeds: Tensor, valid: Tensor, mean: Tensor, before: Tensor | None) -> Tensor:
        placed = _with_position(embeds, self.position)
        query, key, value = self.query(mean)[:, None], self.key(placed), self.value(placed)
        out: Tensor = self.out(_attend(query, key, value, valid, self.heads)[:, 0])
        return out


class LocalEncoderMerger(MeanMerger):
    """A small transformer over [e_i; p_i] that sees the whole segment, pooled by cross-attention from the mean.

    With `merger_window` w it also sees the w tokens before; only the segment's own states are pooled.
    """

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__(config)
        d = config.hidden_size
        self.heads = config.merger_heads
        slots = config.merger_window + config.max_segment_length
        self.position = nn.Parameter(torch.randn(slots, d // 2) * 0.02)
        self.inner = nn.Linear(d + d // 2, d)
        layer = nn.TransformerEncoderLayer(
            d, config.merger_heads, 2 * d, dropout=0.0, activation=F.gelu, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, config.merger_layers, enable_nested_tensor=False)
        self.query = nn.Linear(d, d, bias=False)
        self.key_value = nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(d, d, bias=False)
        nn.init.zeros_(self.out.weight)

    def correction(self, embeds: Tensor, valid: Tensor, mean: Tensor, before: Tensor | None) -> Tensor:
        window = 0 if before is None else before.shape[1]
        seen, there = embeds, valid
        if before is not None and window:
            seen = torch.cat([before, embeds], 1)
            there = torch.cat([valid.new_ones(len(valid), window), valid], 1)
        read = self.layers(self.inner(_with_position(seen, self.position)), src_key_padding_mask=~there)[:, window:]
        key, value = self.key_value(read).chunk(2, -1)
        out: Tensor = self.out(_attend(self.query(mean)[:, None], key, value, valid, self.heads)[:, 0])
        return out


def build_merger(config: MicroStepConfig) -> MeanMerger:
    """Return the merger that a configuration names, freshly initialised.

    If only the cache is folded, it has no weights.
    """
    if config.merger == "mean" or config.folds_cache:
        return MeanMerger(config)
    classes = {
        "residual_softmax": ResidualSoftmaxMerger,
        "attention": AttentionMerger,
        "local_encoder": LocalEncoderMerger,
    }
    return classes[config.merger](config)


def _with_position(embeds: Tensor, position: Tensor) -> Tensor:
    """Return [Q, m, d + d/2], each embedding with the position of its slot."""
    return torch.cat([embeds, position[: embeds.shape[1]].expand(embeds.shape[0], -1, -1).to(embeds.dtype)], -1)


def _attend(query: Tensor, key: Tensor, value: Tensor, valid: Tensor, heads: int) -> Tensor:
    """Return [Q, L, d], the attention of queries [Q, L, d] over keys and values [Q, M, d]."""
    q, k, v = (x.view(*x.shape[:2], heads, -1).transpose(1, 2) for x in (query, key, value))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None])
    return mixed.transpose(1, 2).flatten(2)
