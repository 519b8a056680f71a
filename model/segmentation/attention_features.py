"""Features for the rules attention_mass, attention_sparsity and router, computed from a model in one pass per text.

The row of token t is the attention of the position that predicts it, averaged over the chosen layers and heads. The
first position, a sink on which models rest their attention (Xiao et al. 2023, arXiv 2309.17453), is removed, and the
rest is renormalised. A token whose row is then empty is missing (NaN).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.attention_capture import AttentionRows, capture, private_copy
from model.causal_lm.attention_layers import check_attention, readable, whole_maps, with_attention
from model.causal_lm.device_memory import available_memory, spoken_bytes
from model.causal_lm.finite import check_states
from model.causal_lm.forward import body, context_length, fed_ids, hidden_states, text_config, watched
from model.causal_lm.parts import layers_of, option
from model.errors import MicroStepError, TooLarge
from model.progress import Progress
from model.segmentation.segment import MAX_LENGTH

_BLOCK_ELEMENTS = 1 << 24  # attention weights held at a time: 64 MiB in float32
_SPARE = 0.9  # share of the free memory that a run may use


@dataclass(frozen=True)
class AttentionShares:
    """The distribution of attention behind the predictions of N tokens."""

    mass: NDArray[np.float32]  # [N, W] column j - 1: the share that goes to the j tokens before
    sparsity: NDArray[np.float32]  # [N] exp(-sum a ln a) over the number of tokens that could be seen: 0 to 1
    layers: tuple[int, ...]
    heads: tuple[int, ...] | None  # None: all

    def __post_init__(self) -> None:
        if self.mass.ndim != 2 or self.sparsity.shape != self.mass.shape[:1]:
            raise ValueError(f"mass must be [N, W] and sparsity [N], got {self.mass.shape} and {self.sparsity.shape}")


def attention_shares(
    model: PreTrainedModel,
    row: NDArray[np.int64],
    prefix: Sequence[int] = (),
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    width: int = MAX_LENGTH,
    progress: Progress | None = None,
) -> AttentionShares:
    """Return the attention shares of one text [N].

    Args:
        model: any decoder-only language model.
        row: token ids, without the tokenizer's prefix.
        prefix: ids before the text.
        layers: layers to average over, from 0; None: all that have attention.
        heads: heads to average over, the same in every layer; None: all.
        width: W, the largest number of tokens before a token for which a share is computed.
        progress: called with the share done; may raise to stop.

    Raises:
        MicroStepError: no such layer or head.
        ModelError: a layer's attention cannot be read.
        TooLarge: the text is longer than the context, or the layers' queries and keys exceed the free memory.
    """
    if layers is None:
        layers = with_attention(model)
    chosen = _chosen("layer", layers, int(text_config(model).num_hidden_layers))
    check_attention(model, chosen)
    if heads is not None:
        heads = _chosen("head", heads, int(option(text_config(model), "num_attention_heads") or 1))
    mass = np.full((len(row), width), np.nan, dtype=np.float32)
    sparsity = np.full(len(row), np.nan, dtype=np.float32)
    with torch.inference_mode():
        for at, rows, seen in _mean_rows(model, row, prefix, chosen, heads, progress):
            tokens = slice(at.start + 1 - len(prefix), at.stop + 1 - len(prefix))
            mass[tokens], sparsity[tokens] = _shares(at, rows, seen, width, max(1, len(prefix)))
    return AttentionShares(mass, sparsity, chosen, None if heads is None else tuple(heads))


def router_turns(
    model: PreTrainedModel,
    row: NDArray[np.int64],
    layer: int,
    prefix: Sequence[int] = (),
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Return [N], half of (1 - cosine) between the hidden states of each token and the one before.

    The states are taken after `layer` layers; layer 0 are the embeddings. The first token is missing, and so is a last
    one beyond the model's context.

    Raises:
        MicroStepError: no such layer.
        TooLarge: the text is longer than the context.
        NumericalError: the hidden states are not finite.
    """
    count = int(text_config(model).num_hidden_layers)
    if not 0 <= layer <= count:
        raise MicroStepError(f"layer must be from 0 to {count} for this model, got {layer}")
    turns, limit = np.full(len(row), np.nan, dtype=np.float32), context_length(model)
    fits = limit is None or len(row) + len(prefix) <= limit
    read = np.append(row, row[-1:]) if fits else row  # the last id of a row is never read
    held: list[Tensor] = []
    with torch.inference_mode(), watched(model, progress):
        private = private_copy(model)
        _keep_states(private, layer, held)
        hidden_states(private, [read], prefix)
    if held:
        states = held[0][0, len(prefix) :].float()
        check_states(model, states, f"hidden states after layer {layer}")
        turn = (1 - torch.cosine_similarity(states[1:], states[:-1], dim=-1)) / 2
        turns[1 : len(turn) + 1] = turn.clamp_(0, 1).cpu().numpy()
    return turns


def _keep_states(private: PreTrainedModel, layer: int, held: list[Tensor]) -> None:
    layers = layers_of(body(private))

    def before(_: nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        held.append(args[0] if args else options["hidden_states"])

    def after(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        held.append(output if isinstance(output, Tensor) else output[0])

    if layer == 0:
        layers[0].register_forward_pre_hook(before, with_kwargs=True)
    else:
        layers[layer - 1].register_forward_hook(after)


def _chosen(what: str, given: Sequence[int] | None, count: int) -> tuple[int, ...]:
    chosen = tuple(range(count)) if given is None else tuple(sorted(set(given)))
    wrong = [i for i in chosen if not 0 <= i < count]
    if wrong or not chosen:
        raise MicroStepError(
            f"{what} must be from 0 to {count - 1} for this model, got {wrong[0] if wrong else 'none'}"
        )
    return chosen


def _mean_rows(
    model: PreTrainedModel,
    row: NDArray[np.int64],
    prefix: Sequence[int],
    layers: tuple[int, ...],
    heads: Sequence[int] | None,
    progress: Progress | None,
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield blocks of positions, their attention [block, end] averaged over layers and heads, and what they see."""
    n = len(fed_ids(row, prefix))
    if n < 1:
        return
    _check_memory(model, n, len(layers))
    held: list[AttentionRows]
    if readable(model).whole:
        maps = whole_maps(model, torch.as_tensor(fed_ids(row, prefix), device=model.device)[None])
        held = [maps[layer] for layer in layers]
    else:
        with watched(model, progress, share=0.5):
            private = private_copy(model)
            captured = capture(private, layers)
            hidden_states(private, [row], prefix)
        held = list(captured.held.values())
    step = max(1, _BLOCK_ELEMENTS // (n * held[0].heads))
    for begin in range(max(0, len(prefix) - 1), n, step):  # the first position that predicts a token of the row
        end = min(begin + step, n)
        yield slice(begin, end), *_averaged(held, begin, end, heads)
        if progress is not None:
            progress(0.5 + 0.5 * end / n)


def _averaged(
    held: Sequence[AttentionRows], begin: int, end: int, heads: Sequence[int] | None
) -> tuple[Tensor, Tensor]:
    rows, seen = held[0].rows(begin, end, heads).mean(0), held[0].visible(begin, end)
    for layer in held[1:]:
        rows += layer.rows(begin, end, heads).mean(0)
        seen = seen | layer.visible(begin, end)
    return rows / len(held), seen


def _shares(
    at: slice, rows: Tensor, seen: Tensor, width: int, sinks: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return mass [block, W] and sparsity [block] of positions `at` from their rows [block, end]."""
    a = rows[:, sinks:]  # without the first position, or the tokenizer's prefix
    a = a / a.sum(-1, keepdim=True)  # NaN where nothing is left
    sparsity = torch.special.entr(a).sum(-1).exp() / seen[:, sinks:].sum(-1)
    if a.shape[1] == 0:
        nothing = np.full((len(rows), width), np.nan, dtype=np.float32)
        return nothing, nothing[:, 0]
    position = torch.arange(at.start, at.stop, device=a.device)
    column = position[:, None] - sinks - torch.arange(width, device=a.device)  # of a
    near = a.gather(1, column.clamp(min=0)) * torch.where(column >= 0, 1.0, 0.0)
    # The whole row sums to 1 except for rounding.
    return near.cumsum(-1).clamp_(max=1).cpu().numpy(), sparsity.cpu().numpy()


def _check_memory(model: PreTrainedModel, n: int, layers: int) -> None:
    config = text_config(model)
    heads = int(option(config, "num_attention_heads") or 1)
    width = heads * int(option(config, "head_dim") or config.hidden_size // heads)
    needed = 2 * layers * n * width * model.dtype.itemsize
    free = available_memory(model.device.type)
    if needed > _SPARE * free:
        raise TooLarge(
            f"the queries and keys of {layers} layers over {n:,} tokens take {spoken_bytes(needed)},"
            f" {spoken_bytes(free)} are free; choose fewer layers or a shorter text"
        )
