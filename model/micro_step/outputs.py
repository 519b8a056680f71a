"""What a pass of the micro_step model gives, and how the base's inner states are caught."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.utils import ModelOutput

from model.micro_step.micro_decoder import layers_of


@dataclass
class MicroStepOutput(ModelOutput):  # type: ignore[misc]
    """What a forward pass gives; what was not asked for is None."""

    loss: Tensor | None = None  # [] of tokens, stops, the teacher and its states, by their weights
    logits: Tensor | None = None  # [B, N, V] at t of token t + 1, float32; only without labels
    token_loss: Tensor | None = None  # [] mean nll of the labelled tokens, nats
    stop_loss: Tensor | None = None  # [] mean binary cross-entropy of the stops, nats
    teacher_loss: Tensor | None = None  # [] mean KL(teacher || model) of the labelled tokens, nats
    hidden_loss: Tensor | None = None  # [] relative error of the states at segments' ends, mean over labelled tokens
    hidden_count: Tensor | None = None  # [] labelled tokens whose segment's end has a teacher's states
    stop_count: int | None = None  # stops that the stop loss is over
    stop_correct: Tensor | None = None  # [] of these on the right side of one half
    labelled: Tensor | None = None  # [B, N] bool, the tokens that have a label
    nll: Tensor | None = None  # [B, N] of token t, nats; NaN without a label
    correct: Tensor | None = None  # [B, N] bool, token t was the likeliest
    micro_position: Tensor | None = None  # [B, N] 0 for a segment's first token, which the base predicts
    stop_logits: Tensor | None = None  # [B, N] that the segment ends after t; NaN where the micro decoder did not run
    hidden_states: tuple[Tensor, ...] | None = None  # K x [B, S, d] the base's states that the micro decoder reads
    macro_attentions: tuple[Tensor, ...] | None = None  # a layer [B, H, S, S]; the first `merge_layer` [B, H, N, N]
    micro_hidden_states: Tensor | None = None  # [Q, M - 1, d]
    micro_attentions: tuple[Tensor, ...] | None = None  # a micro layer [Q, H, K + M - 1, K + M - 1]
    micro_segments: Tensor | None = None  # [Q, 2] row and segment of each


@dataclass(frozen=True)
class Macro:
    """What the base says of a batch's macro steps."""

    last: Tensor  # [B, S, d] states after the final norm
    context: Tensor  # [B, S, K, d] states of the context layers
    attentions: tuple[Tensor, ...] | None  # a layer [B, H, S, S]; the first `merge_layer` [B, H, N, N], token by token


@dataclass(frozen=True)
class Micro:
    """The micro decoder's states of Q segments, and where those stand that predict or end something."""

    row: Tensor  # [T] row of each state
    token: Tensor  # [T] index (of N) of the token that was read last
    inner: Tensor  # [T] bool, the next token belongs to the same segment: the state predicts it
    states: Tensor  # [T, d]
    whole: Tensor  # [Q, M - 1, d]
    attentions: tuple[Tensor, ...] | None


@contextmanager
def states_of(inner: nn.Module, chosen: list[int]) -> Iterator[list[Tensor]]:
    """Keep what chosen layers, counted from 1, put out during the block."""
    states: list[Tensor] = []
    layers, thread = layers_of(inner), threading.get_ident()

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if threading.get_ident() == thread:  # the model is shared, the run is not
            states.append(output[0] if isinstance(output, tuple) else output)

    handles = [layers[i - 1].register_forward_hook(keep) for i in chosen]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
