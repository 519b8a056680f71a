"""A causal language model in two parts, its body and its head, and the progress of a run through it.

Works for any decoder-only family, since it only ever calls the family's own `forward`. Knows nothing about scores.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from model.errors import TextError, TooLarge

Progress = Callable[[float], None]  # called with the share done, 0 to 1; may raise to stop the run


def token_model(model: PreTrainedModel) -> PreTrainedModel:
    """The language model that reads one token at a time: of a micro_step model its base, else the model itself."""
    return model.base if model.config.model_type == "micro_step" else model


def body(model: PreTrainedModel) -> nn.Module:
    """The model without its LM head."""
    model = token_model(model)
    inner: nn.Module = getattr(model, model.base_model_prefix)
    return inner


class _HandedOn(BaseModelOutput):  # type: ignore[misc]
    """A body's output of which a family may ask whatever it knows: router logits, caches. There is none."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class _PassThrough(nn.Module):
    """Stands in the body's place and hands on the hidden states that it is given."""

    def forward(self, *_: Any, inputs_embeds: Tensor, **__: Any) -> BaseModelOutput:
        return _HandedOn(last_hidden_state=inputs_embeds)


def logits_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The model's own way from the body's last hidden states to logits, in float32: head, scaling, soft cap.

    Runs the family's own `forward` with the body replaced by a pass-through, on a shallow copy that shares the
    weights, so that nothing here has to know of any family's logit scaling.

    Args:
        model: the language model.
        hidden: [C, d] last hidden states, after the final norm, on the model's device.

    Returns:
        [C, V] float32, free to be overwritten.
    """
    model = token_model(model)
    head = copy.copy(model)
    head._modules = {**model._modules, model.base_model_prefix: _PassThrough()}
    logits: Tensor = head(inputs_embeds=hidden[None], use_cache=False).logits[0]
    return logits.float()


def vocabulary(model: PreTrainedModel) -> int:
    """V, the width of the model's logits (which may exceed the tokenizer's vocabulary)."""
    head = model.get_output_embeddings()
    return int(head.weight.shape[0]) if head is not None else int(model.config.vocab_size)


def text_config(model: PreTrainedModel) -> Any:
    """The configuration of the language model, where a model holds others too."""
    return token_model(model).config.get_text_config()


def context_length(model: PreTrainedModel) -> int | None:
    """The number of positions that the model was made for, if it states one."""
    limit = getattr(text_config(model), "max_position_embeddings", None)
    return int(limit) if limit else None


def check_readable(model: PreTrainedModel, rows: Sequence[NDArray[np.int64]], longest: int) -> None:
    """Raise TooLarge or TextError if a model cannot read rows of ids: too many positions, or an id it does not know."""
    limit = context_length(model)
    if limit is not None and longest > limit:
        raise TooLarge(f"the text has {longest} tokens, the model's context holds {limit}; shorten the text")
    known = model.get_input_embeddings().weight.shape[0]
    if (unknown := max(int(row.max(initial=0)) for row in rows)) >= known:
        raise TextError(f"the text holds the special token {unknown}, which this model does not know; take it out")


def fed_ids(row: NDArray[np.int64], prefix: Sequence[int] = ()) -> NDArray[np.int64]:
    """What a model reads to score a row [N]: the prefix [P], then all but the last id; nothing for an empty row."""
    return np.concatenate([np.asarray(prefix, dtype=np.int64), row[:-1]]) if len(row) else row


def hidden_states(
    model: PreTrainedModel, rows: Sequence[NDArray[np.int64]], prefix: Sequence[int]
) -> tuple[Tensor, list[int]]:
    """[B, L, d] last hidden states that predict a token of their row, and how many of each row do.

    Of a prefix [P], only its last position predicts a token of the row.
    """
    fed, before = [fed_ids(row, prefix) for row in rows], max(0, len(prefix) - 1)
    lengths = [max(0, len(row) - before) for row in fed]
    longest = max(map(len, fed), default=0)
    if longest == 0:
        return torch.zeros(len(rows), 0, text_config(model).hidden_size, device=model.device), lengths
    check_readable(model, rows, longest)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(fed):
        ids[i, : len(row)] = torch.as_tensor(row)
    hidden: Tensor = body(model)(input_ids=ids.to(model.device), use_cache=False).last_hidden_state
    return hidden[:, before:], lengths


@contextmanager
def watched(
    model: PreTrainedModel, progress: Progress | None, start: float = 0.0, share: float = 1.0
) -> Iterator[None]:
    """Report each layer of the body that the calling thread runs within the block.

    Hooks are taken off at the end, and stay silent in other threads, so that the shared model holds no state of a run.
    """
    layers = max((m for m in body(model).modules() if isinstance(m, nn.ModuleList)), key=len, default=None)
    if progress is None or layers is None:
        yield
        return
    thread, count = threading.get_ident(), len(layers)

    def hook_for(i: int) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            if threading.get_ident() == thread:
                progress(start + share * (i + 1) / count)

        return hook

    handles = [layer.register_forward_hook(hook_for(i)) for i, layer in enumerate(layers)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
