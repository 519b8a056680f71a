"""The output of a pass of the micro_step model, and how the base's inner states are captured."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from transformers.utils import ModelOutput

from model.causal_lm.parts import layers_of


@dataclass
class MicroStepOutput(ModelOutput):  # type: ignore[misc]
    """The output of a forward pass; values that were not requested are None."""

    loss: Tensor | None = None  # [] weighted sum over tokens, stops, the teacher and its states
    logits: Tensor | None = None  # [B, N, V] at t of token t + 1, float32; only without labels
    token_loss: Tensor | None = None  # [] mean nll of the labelled tokens, nats
    stop_loss: Tensor | None = None  # [] mean binary cross-entropy of the stops, nats
    teacher_loss: Tensor | None = None  # [] mean KL(teacher || model) of the labelled tokens, nats
    hidden_loss: Tensor | None = (
        None  # [] relative error of the states at the ends of segments, mean over labelled tokens
    )
    hidden_count: Tensor | None = None  # [] number of labelled tokens whose segment end has a teacher's states
    stop_count: int | None = None  # number of stops in the stop loss
    stop_correct: Tensor | None = None  # [] number of these on the right side of 0.5
    labelled: Tensor | None = None  # [B, N] bool, the tokens that have a label
    nll: Tensor | None = None  # [B, N] of token t, in nats; NaN without a label
    correct: Tensor | None = None  # [B, N] bool, True if token t was the likeliest
    micro_position: Tensor | None = None  # [B, N] 0 for a segment's first token, which the base predicts
    stop_logits: Tensor | None = (
        None  # [B, N] logit that the segment ends after t; NaN where the micro decoder did not run
    )
    hidden_states: tuple[Tensor, ...] | None = None  # K x [B, S, d] the base's states that the micro decoder reads
    macro_attentions: tuple[Tensor, ...] | None = (
        None  # per layer [B, H, S, S]; in the first `merge_layer` layers [B, H, N, N]
    )
    micro_hidden_states: Tensor | None = None  # [Q, M - 1, d]
    micro_attentions: tuple[Tensor, ...] | None = None  # per micro layer [Q, H, K + M - 1, K + M - 1]
    micro_segments: Tensor | None = None  # [Q, 2] row and segment of each of the Q


@dataclass(frozen=True)
class Macro:
    """What the base says of a batch's macro steps."""

    last: Tensor  # [B, S, d] states after the final norm
    context: Tensor  # [B, S, K, d] states of the context layers
    attentions: (
        tuple[Tensor, ...] | None
    )  # per layer [B, H, S, S]; in the first `merge_layer` layers [B, H, N, N], token by token


@dataclass(frozen=True)
class Micro:
    """The micro decoder's states of Q segments, and the positions of those that predict a token or an end."""

    row: Tensor  # [T] row of each state
    token: Tensor  # [T] index (of N) of the last token read
    inner: Tensor  # [T] bool, True if the next token is in the same segment, so the state predicts it
    states: Tensor  # [T, d]
    whole: Tensor  # [Q, M - 1, d]
    attentions: tuple[Tensor, ...] | None


@contextmanager
def layer_outputs(inner: nn.Module, chosen: list[int]) -> Iterator[list[Tensor]]:
    """Capture the output of chosen layers, counted from 1, during the block."""
    states: list[Tensor] = []
    layers, thread = layers_of(inner), threading.get_ident()

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        if threading.get_ident() == thread:  # the model is shared between threads, the run is not
            states.append(output[0] if isinstance(output, tuple) else output)

    handles = [layers[i - 1].register_forward_hook(keep) for i in chosen]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()
