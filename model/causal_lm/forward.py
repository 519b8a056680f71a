"""A causal language model in two parts, body and head, and the progress of a run through it.

It works for any decoder-only family, since it calls only the family's own `forward`. It knows nothing about scores.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.parts import body, body_name, decoder, family_of, head_logits, text_config, token_model
from model.causal_lm.probe import parted
from model.errors import TextError, TooLarge
from model.progress import Progress

__all__ = [
    "body",
    "body_name",
    "check_readable",
    "context_length",
    "family_of",
    "fed_ids",
    "hidden_states",
    "logits_of",
    "states",
    "text_config",
    "token_model",
    "vocabulary",
    "watched",
]


def logits_of(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Compute float32 logits from the output of `states`, with the model's own head, scaling and soft cap.

    Runs the family's own `forward` on a shallow copy that shares the weights, with the body replaced by one that
    returns `hidden`, so nothing here depends on a family's logit scaling.

    `hidden` is [C, d]. The result is [C, V] float32, free to be overwritten.
    """
    model = token_model(model)
    if not parted(model):
        return hidden.to(torch.float32, copy=True)
    return head_logits(model, hidden).float()


def states(model: PreTrainedModel, **inputs: Any) -> Tensor:
    """Return [B, L, d], the body's last hidden states, which `logits_of` turns into logits.

    If a family cannot be split into body and head, they are the logits themselves, [B, L, V]; that takes more memory.

    Raises:
        ModelError: the family cannot be read one token after the other (see `model.causal_lm.probe`).
    """
    model = token_model(model)
    out = body(model)(**inputs).last_hidden_state if parted(model) else model(**inputs).logits
    return cast(Tensor, out)


def vocabulary(model: PreTrainedModel) -> int:
    """Return V, the width of the model's logits, which may exceed the tokenizer's vocabulary."""
    head = model.get_output_embeddings()
    return int(head.weight.shape[0]) if head is not None else int(model.config.vocab_size)


def context_length(model: PreTrainedModel) -> int | None:
    """Return the number of positions that the model was made for, if it states one."""
    limit = getattr(text_config(model), "max_position_embeddings", None)
    return int(limit) if limit and limit > 0 else None


def check_readable(model: PreTrainedModel, rows: Sequence[NDArray[np.int64]], longest: int) -> None:
    """Raise TooLarge or TextError if a model cannot read rows of ids.

    The rows may have too many positions, or hold an id that the model does not know.
    """
    limit = context_length(model)
    if limit is not None and longest > limit:
        raise TooLarge(f"the text has {longest} tokens, but the model's context holds {limit}; shorten the text")
    known = model.get_input_embeddings().weight.shape[0]
    if (unknown := max(int(row.max(initial=0)) for row in rows)) >= known:
        raise TextError(f"the text contains the special token {unknown}, which this model does not know; remove it")


def fed_ids(row: NDArray[np.int64], prefix: Sequence[int] = ()) -> NDArray[np.int64]:
    """Return the ids that a model reads to score a row [N]: prefix [P] and all but the last id, or nothing."""
    return np.concatenate([np.asarray(prefix, dtype=np.int64), row[:-1]]) if len(row) else row


def hidden_states(
    model: PreTrainedModel, rows: Sequence[NDArray[np.int64]], prefix: Sequence[int]
) -> tuple[Tensor, list[int]]:
    """Return [B, L, d] last hidden states that predict the tokens of their row, and the number of such states per row.

    Of a prefix [P], only the last position predicts a token of the row.
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
    hidden = states(model, input_ids=ids.to(model.device), use_cache=False)
    return hidden[:, before:], lengths


@contextmanager
def watched(
    model: PreTrainedModel, progress: Progress | None, start: float = 0.0, share: float = 1.0
) -> Iterator[None]:
    """Report each layer of the body that the calling thread runs within the block.

    Hooks ignore other threads and are removed at the end, so the shared model holds no state of a run.
    """
    parted(model)  # probe first, so that the probing passes are not reported
    layers = max((m for m in decoder(model).modules() if isinstance(m, nn.ModuleList)), key=len, default=None)
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
