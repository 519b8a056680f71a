"""The floating-point operations of a training step, by formula: two for each multiplication in a matrix product.

The backward pass takes twice those of the forward pass. Attention counts whole rows of keys, as it is computed, masked
or not. Norms, softmax, rotary positions and everything else that is no product of matrices are left out.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.forward import vocabulary
from model.errors import MicroStepError
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.segment_layout import layout
from trainer.batches.sampler import RowBatch
from trainer.objectives import patch_lengths

_BACKWARD = 2  # times the forward pass
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")  # families whose layers `_layers` counts


def training_flops(model: PreTrainedModel, batch: RowBatch) -> float:
    """Return the operations of a training step on a batch, padding included.

    Raises:
        MicroStepError: the family's layers are not known here.
    """
    rows, length = batch.ids.shape
    labelled = int((batch.labels[:, 1:] != -100).sum())
    if isinstance(model, MicroStepForCausalLM):
        forward = _micro_step(model, batch)
        width = model.config.hidden_size
    elif model.config.model_type == "blt":
        forward = _blt(model.config, rows, length, patch_lengths(batch.starts, batch.mask).shape[1])
        width = model.config.decoder_config.hidden_size
    else:
        forward = _layers(model.config, rows, length)
        width = model.config.hidden_size
    return float((1 + _BACKWARD) * (forward + 2 * labelled * width * vocabulary(model)))


def _layers(config: Any, rows: int, length: int, layers: int | None = None) -> int:
    """A stack of transformer layers with gated feed-forward blocks over [rows, length]."""
    if config.model_type not in LLAMAS and not config.model_type.startswith("blt"):
        raise MicroStepError(
            f"the operations of {config.model_type} are not counted; use one of {', '.join(LLAMAS)} or blt"
        )
    d, heads = int(config.hidden_size), int(config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or d // heads)
    query, key = heads * head, int(config.num_key_value_heads) * head
    a_token = 2 * d * query + 2 * d * key + 3 * d * int(config.intermediate_size)
    each = 2 * rows * length * a_token + 4 * rows * length * length * query
    return int(config.num_hidden_layers if layers is None else layers) * each


def _cross(d: int, rows: int, queries: int, keys: int) -> int:
    """A layer of cross-attention of width d."""
    return 2 * rows * (2 * queries + 2 * keys) * d * d + 4 * rows * queries * keys * d


def _blt(config: Any, rows: int, length: int, patches: int) -> int:
    """A BLT's body: local layers over the bytes, global layers over the patches, and cross-attention between them."""
    encoder, decoder, whole = config.encoder_config, config.decoder_config, config.global_config
    k = int(config.cross_attn_k)
    local, out, wide = int(encoder.hidden_size), int(decoder.hidden_size), int(whole.hidden_size)
    into = encoder.num_hidden_layers if encoder.cross_attn_all_layers else 1
    back = decoder.num_hidden_layers if decoder.cross_attn_all_layers else 1
    pooled = 2 * rows * patches * local * local * k + _cross(local, rows, patches * k, length)
    projected = 2 * rows * patches * local * k * wide if local * k != wide else 0
    read = 2 * rows * patches * wide * out * k + back * _cross(out, rows, length, patches * k)
    return (
        _layers(encoder, rows, length)
        + into * pooled
        + projected
        + _layers(whole, rows, patches)
        + read
        + _layers(decoder, rows, length)
    )


def _micro_step(model: MicroStepForCausalLM, batch: RowBatch) -> int:
    """The merger over segments, the base over macro steps, and the micro decoder over the tokens inside segments."""
    config = model.config
    if config.merge_layer:
        raise MicroStepError("the operations of a model that merges above its embeddings are not counted")
    plan = layout(batch.starts, batch.mask, config.max_segment_length)
    labelled = plan.real & (plan.position > 0) & (batch.labels != -100)
    total = _layers(config.base_config, *plan.lengths.shape)
    chosen = model.micro_segments(plan, labelled)
    lengths = plan.lengths[chosen]
    needed = lengths.clamp(max=config.max_segment_length - 1) if model.reads_ends else lengths - 1
    context = len(config.context_layers) + config.micro_window
    for n, count in enumerate(needed.bincount(minlength=1).tolist()):
        total += _layers(config.base_config, count, context + n, config.micro_layers) if n else 0
    return total + _merger(config, plan.lengths)


def _merger(config: Any, lengths: Tensor) -> int:
    """The merger over segments of two tokens or more, padded to the longest."""
    d, merged, longest = int(config.hidden_size), int((lengths > 1).sum()), int(lengths.max())
    inner = d * (d + d // 2)
    if config.merger == "residual_softmax":
        return 2 * merged * (longest * (inner + d * d) + d * d)
    if config.merger == "attention":
        return 2 * merged * (longest * 2 * inner + 2 * d * d) + 4 * merged * longest * d
    if config.merger == "local_encoder":
        seen = longest + int(config.merger_window)  # of which only the segment's own tokens are pooled
        layer = 2 * merged * seen * 8 * d * d + 4 * merged * seen * seen * d
        pooled = 2 * merged * (longest * 2 * d * d + 2 * d * d) + 4 * merged * longest * d
        return 2 * merged * seen * inner + int(config.merger_layers) * layer + pooled
    return 0


def measured_flops(step: Any) -> float:
    """Return the operations that a function really does, counted while it runs."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        step()
    return float(counter.get_total_flops())
