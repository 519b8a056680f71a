"""Computes the attention weights of the micro decoder in each segment of segmented rows of tokens.

Inside a segment the micro decoder reads [c_1 .. c_K, e(y_1) .. e(y_j)]: K states of the base at the previous macro
step, then the segment's own tokens. The query that has read y_j predicts token j + 1; its weights run over the K + j
slots that it sees. Merged models read the base's states after merged segments. A model trained for lossless decoding
reads the states of single tokens, as it does when it writes.

A copy of the micro decoder that shares its weights runs with the family's eager attention, so the model itself is not
changed. Padding is never a query, so a padded batch gives the same weights as each row alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.causal_lm.finite import check_states
from model.causal_lm.forward import check_readable
from model.micro_step.macro_inputs import read_segments
from model.micro_step.micro_decoder import MicroDecoder
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.segment_layout import layout
from model.progress import Progress

Floats = NDArray[np.float32]
BATCH_TOKENS = 2048  # in rows that the base reads together, including padding
_BLOCK_BYTES = 96 * 2**20  # bytes that the micro decoder holds at once


@dataclass(frozen=True)
class SegmentedRow:
    """N tokens as the model reads them, BOS included, and where segments start."""

    ids: NDArray[np.int64]  # [N]
    starts: NDArray[np.bool_]  # [N]; the first two are true, since no macro step comes before the first token

    def __post_init__(self) -> None:
        if self.ids.shape != self.starts.shape or self.ids.ndim != 1:
            raise ValueError(f"ids and starts must both be [N], got {self.ids.shape} and {self.starts.shape}")
        if not self.starts[:2].all():
            raise ValueError("the first two tokens of a row must start segments")


@dataclass(frozen=True)
class Block:
    """The weights of Q segments with two tokens and more."""

    row: NDArray[np.int64]  # [Q] index of the row
    first: NDArray[np.int64]  # [Q] index of the segment's first token in its row
    length: NDArray[np.int64]  # [Q] number of its tokens
    weights: Floats
    """[Q, L, H, P, K + P] of each layer, head and query: query j (from 0) has read j + 1 tokens of the segment. NaN
    if the segment has no such query, and in slots that the query does not see."""


def micro_blocks(
    model: MicroStepForCausalLM,
    rows: Sequence[SegmentedRow],
    merged: bool,
    most: int,
    progress: Progress | None = None,
) -> Iterator[Block]:
    """The micro attention of all segments of all rows, a few at a time, in order.

    Args:
        model: a micro_step model.
        rows: the rows that it reads.
        merged: whether the base reads merged segments, or token by token.
        most: the longest segment in tokens, from 2 to the model's M; P is one less.
        progress: receives the share of rows done; may raise to stop.

    Raises:
        TooLarge: a row does not fit the model's context.
        TextError: a row holds a token that the model does not know.
        MicroStepError: a segment has more than `most` tokens.
        NumericalError: weights are not finite.
    """
    micro = eager_copy(model.micro)
    begin = 0
    while begin < len(rows):
        end = _batch_end(rows, begin)
        batch = rows[begin:end]
        check_readable(model, [row.ids for row in batch], max(len(row.ids) for row in batch))
        yield from _batch_blocks(model, micro, batch, begin, merged, most)
        begin = end
        if progress is not None:
            progress(end / len(rows))


def eager_copy(micro: MicroDecoder) -> MicroDecoder:
    """A copy of the micro decoder with the family's eager attention that shares its weights."""
    shared = {id(tensor): tensor for tensor in chain(micro.parameters(), micro.buffers())}
    private = copy.deepcopy(micro, shared)
    private.layers.set_attn_implementation("eager")
    return private


def _batch_end(rows: Sequence[SegmentedRow], begin: int) -> int:
    """The end of the rows from `begin` on that are read together; at least one."""
    longest, end = 0, begin
    while end < len(rows):
        longest = max(longest, len(rows[end].ids))
        if end > begin and longest * (end + 1 - begin) > BATCH_TOKENS:
            break
        end += 1
    return end


@dataclass(frozen=True)
class _Steps:
    """The Q segments of a batch, as the micro decoder reads them."""

    context: Tensor  # [Q, K, d]
    e: Tensor  # [Q, P, d]; the last token is repeated past the segment's end
    length: Tensor  # [Q]
    row: Tensor  # [Q]
    first: Tensor  # [Q]


def _batch_blocks(
    model: MicroStepForCausalLM, micro: MicroDecoder, batch: Sequence[SegmentedRow], begin: int, merged: bool, most: int
) -> Iterator[Block]:
    steps = _steps(model, batch, merged, most)
    size = _segments_at_once(model, model.micro.context + most - 1)
    for a in range(0, len(steps.row), size):
        part = slice(a, a + size)
        weights = _weights(model, micro, steps.context[part], steps.e[part], steps.length[part])
        yield Block(
            row=steps.row[part].cpu().numpy() + begin,
            first=steps.first[part].cpu().numpy(),
            length=steps.length[part].cpu().numpy(),
            weights=weights.cpu().numpy(),
        )


@torch.inference_mode()
def _steps(model: MicroStepForCausalLM, batch: Sequence[SegmentedRow], merged: bool, most: int) -> _Steps:
    ids, real, starts = _padded(batch, model.device)
    plan = layout(starts, real, most)
    row, segment = (plan.lengths > 1).nonzero(as_tuple=True)
    length = plan.lengths[row, segment]
    first = plan.last[row, segment] - length + 1
    e = model.get_input_embeddings()(ids)
    if merged:
        context = read_segments(model, e, plan).context[row, segment - 1]
    else:
        position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        context = model.macro(e, real, position).context[row, first - 1]
    tokens, _ = plan.slots(row, segment, most - 1)
    return _Steps(context, e[row[:, None], tokens], length, row, first)


@torch.inference_mode()
def _weights(model: MicroStepForCausalLM, micro: MicroDecoder, context: Tensor, e: Tensor, lengths: Tensor) -> Tensor:
    """[Q, L, H, P, K + P] float32; see `Block`."""
    k, p = context.shape[1], e.shape[1]
    _, layers = micro(context, e, output_attentions=True)
    weights = torch.stack(cast("tuple[Tensor, ...]", layers), 1)[..., k:, :].float()
    check_states(model, weights, "micro attention weights", "segments")
    query, slot = torch.arange(p, device=e.device), torch.arange(k + p, device=e.device)
    seen = slot <= k + query[:, None]  # [P, K + P]
    asked = query < lengths[:, None] - 1  # [Q, P]
    return weights.masked_fill(~(asked[..., None] & seen)[:, None, None], float("nan"))


def _segments_at_once(model: MicroStepForCausalLM, slots: int) -> int:
    config, hidden = model.micro.layers.config.get_text_config(), model.config.hidden_size
    heads, layers = int(config.num_attention_heads), int(config.num_hidden_layers)
    wide = int(getattr(config, "intermediate_size", 0) or 4 * hidden)
    each = 4 * slots * (3 * layers * heads * slots + 4 * wide + 8 * int(hidden))
    return max(1, _BLOCK_BYTES // each)


def _padded(batch: Sequence[SegmentedRow], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """[B, N] ids, whether they are no padding, and whether they start a segment; padded on the right."""
    n = max(len(row.ids) for row in batch)
    ids = torch.zeros(len(batch), n, dtype=torch.long)
    real, starts = torch.zeros_like(ids, dtype=torch.bool), torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(batch):
        ids[i, : len(row.ids)] = torch.from_numpy(row.ids)
        real[i, : len(row.ids)] = True
        starts[i, : len(row.ids)] = torch.from_numpy(row.starts)
    return ids.to(device), real.to(device), starts.to(device)
