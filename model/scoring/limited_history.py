"""Scores under a limited history, p(. | x_{t-w..t-1}) only, by three methods that differ in cost and exactness.

- `exact`: each window of w tokens is encoded anew. N forward passes over w tokens, batched.
- `strided(s)`: one window for every s tokens; each token sees between w and w + s - 1 tokens. N / s passes.
- `banded`: one pass with a banded attention mask. A token attends to w positions in each layer, itself included, so
  information reaches it from layers x (w - 1) + 1 tokens back. This is another quantity and must always be shown with
  its name. Models with layers that ignore the mask (recurrent ones, convolutions) are refused.

If the tokenizer puts BOS before a text, every window starts with it (in `banded`, every token sees it). A token with
fewer than w tokens before it has its whole history and its full score.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.forward import body, family_of, fed_ids, states, text_config, watched
from model.causal_lm.past import takes_positions
from model.causal_lm.probe import FAULTS, close, once, some_ids
from model.errors import MicroStepError, ModelError
from model.progress import Progress
from model.scoring.scores import Method, TokenScores
from model.scoring.token_scores import reduce_in_chunks, score

WINDOW_TOKENS = 4096  # tokens of all windows in one forward pass, which keeps activations small


@dataclass(frozen=True)
class LimitedHistory:
    """Scores of N tokens that see at most a window of text, and the context that each was given."""

    scores: TokenScores  # of N tokens
    method: Method
    window: int  # w, tokens
    context_min: int  # fewest and most tokens that reach a token with a full window
    context_max: int

    @property
    def meaning(self) -> str:
        """One sentence for legends and manifests on what was computed."""
        if self.method == "exact":
            return f"exactly the last {self.window} tokens"
        if self.method == "strided":
            return f"strided: between {self.context_min} and {self.context_max} tokens"
        return (
            f"banded: {self.window} tokens per layer, reaching up to {self.context_max} tokens back through the layers"
        )


def limited_history(
    model: PreTrainedModel,
    row: NDArray[np.int64],
    window: int,
    method: Method = "exact",
    stride: int = 16,
    prefix: Sequence[int] = (),
    k: int = 5,
    progress: Progress | None = None,
) -> LimitedHistory:
    """Score a text [N] whose tokens see a limited history.

    Args:
        model: any decoder-only language model.
        row: token ids [N], without the tokenizer's prefix.
        window: w, at least 1.
        method: see the module's docstring.
        stride: s, for `strided`.
        prefix: ids before the text.
        k: number of likeliest tokens to keep.
        progress: called with the share done; may raise to stop.

    Raises:
        MicroStepError: window or stride is not positive, there is no such method, or the model's attention is too
            narrow for `banded`.
        ModelError: `banded` does not work because layers of the model ignore the mask.
    """
    if window < 1 or stride < 1:
        raise MicroStepError(f"a limited history needs window and stride of at least 1, got {window} and {stride}")
    if method not in get_args(Method):
        raise MicroStepError(f"unknown history method {method!r}; use one of {', '.join(get_args(Method))}")
    if method == "banded":
        scores = _banded(model, row, window, prefix, k, progress)
        layers = int(text_config(model).num_hidden_layers)
        return LimitedHistory(scores, method, window, window, layers * (window - 1) + 1)
    step = 1 if method == "exact" else stride
    scores = _windows(model, row, window, step, prefix, k, progress)
    return LimitedHistory(scores, method, window, window, window + step - 1)


def _windows(
    model: PreTrainedModel,
    row: NDArray[np.int64],
    window: int,
    stride: int,
    prefix: Sequence[int],
    k: int,
    progress: Progress | None,
) -> TokenScores:
    """Score windows of w + s - 1 tokens, keeping the last s predictions of each.

    One forward pass over the first window comes before.
    """
    n, reach = len(row), window + stride - 1
    (first,) = score(model, [row[: reach + 1]], prefix=prefix, k=k)
    parts, done = [first], len(first)
    # Window j predicts tokens done + j s ... of which each has at least w tokens before it in the window.
    starts = np.arange(done, n, stride)
    per_batch = max(1, WINDOW_TOKENS // (reach + 1))
    with torch.inference_mode():
        for a in range(0, len(starts), per_batch):
            batch = starts[a : a + per_batch]
            # columns: tokens [start - w, start + s - 2], so that column w - 1 + i predicts token start + i
            columns = batch[:, None] - window + np.arange(reach)
            fed = row[np.minimum(columns, n - 1)]
            fed = np.concatenate([np.tile(np.asarray(prefix, dtype=np.int64), (len(batch), 1)), fed], axis=1)
            ids = torch.as_tensor(fed, device=model.device)
            hidden = states(model, input_ids=ids, use_cache=False)[:, len(prefix) + window - 1 :]
            target = batch[:, None] + np.arange(stride)
            real = torch.as_tensor(target < n, device=model.device)
            parts.append(reduce_in_chunks(model, hidden[real], row[target[target < n]], k))
            if progress is not None:
                progress(min(1.0, (a + len(batch)) / len(starts)))
    return TokenScores.join(parts)


def _banded(
    model: PreTrainedModel,
    row: NDArray[np.int64],
    window: int,
    prefix: Sequence[int],
    k: int,
    progress: Progress | None,
) -> TokenScores:
    narrow = getattr(text_config(model), "sliding_window", None)
    if narrow and window > narrow:
        raise MicroStepError(
            f"this model's own attention sees only {narrow} tokens in some layers; use a window up to that"
        )
    fed = torch.as_tensor(fed_ids(row, prefix))
    n = len(fed)
    if n == 0:
        return TokenScores.missing_scores(len(row), k)
    before = max(0, len(prefix) - 1)  # positions that predict no token of the row
    if (why := once(model, "band", lambda: _unbound(model))) is not None:
        raise ModelError(f"{family_of(model)} {why}; use the method exact or strided")
    with torch.inference_mode(), watched(model, progress):
        hidden = _banded_states(model, fed[None].to(model.device), window, sinks=len(prefix))[0]
        target = row if prefix else row[1:]
        scores = reduce_in_chunks(model, hidden[before:], target, k)
    return TokenScores.join([TokenScores.missing_scores(len(row) - len(target), k), scores])


def _banded_states(model: PreTrainedModel, ids: Tensor, window: int, sinks: int) -> Tensor:
    """Return [B, n, d] states of ids [B, n] under a band."""
    n = ids.shape[1]
    inputs: dict[str, Any] = {"attention_mask": _band(n, window, sinks, model.dtype).to(model.device)}
    if takes_positions(body(model)):  # without this, some families would count positions in the mask
        inputs["position_ids"] = torch.arange(n, device=model.device).expand(len(ids), -1)
    return states(model, input_ids=ids, use_cache=False, **inputs)


def _unbound(model: PreTrainedModel) -> str | None:
    """Return why a band does not limit what a token sees, or None if it does.

    A band as wide as the text must also change nothing.
    """
    reach = int(text_config(model).num_hidden_layers) + 1  # reach of a band of width 2
    ids = some_ids(model, tokens=reach + 2)
    other = ids.clone()
    other[:, 0] = ids[:, -1]
    try:
        (whole,) = states(model, input_ids=ids, use_cache=False)
        (wide,) = _banded_states(model, ids, reach + 2, sinks=0)
        narrow = _banded_states(model, torch.cat([ids, other]), 2, sinks=0)
    except FAULTS:
        return "accepts no attention mask over pairs of positions, which a band needs"
    seen = getattr(text_config(model), "sliding_window", None) or len(whole)
    if close(wide[:seen], whole[:seen]) and close(narrow[0, reach:], narrow[1, reach:]):
        return None
    return "has layers that ignore the attention mask, so a band would not limit what they see"


def _band(n: int, window: int, sinks: int, dtype: torch.dtype) -> Tensor:
    """Return a [1, 1, n, n] additive mask: position i sees positions i - w + 1 .. i, and the first `sinks`."""
    i = torch.arange(n)
    back = i[:, None] - i[None, :]
    seen = (back >= 0) & (back < window)
    seen |= (i[None, :] < sinks) & (back >= 0)
    return torch.zeros(n, n, dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)[None, None]
