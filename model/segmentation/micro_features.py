"""The micro decoder's confidence in each next token of a segment, which the rule `refined` uses.

The macro states are those of the text read token by token. A model that was trained to merge reads merged segments when
it generates, so its own segments may differ a little.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from model.causal_lm.finite import check_finite
from model.causal_lm.forward import check_readable, fed_ids, logits_of, vocabulary
from model.progress import Progress

if TYPE_CHECKING:
    from model.micro_step.modeling import MicroStepForCausalLM

_CHUNK_BYTES = 96 * 2**20  # size of the float32 logits of one chunk


def refined_confidences(
    model: MicroStepForCausalLM, ids: NDArray[np.int64], prefix: Sequence[int] = (), progress: Progress | None = None
) -> NDArray[np.float32]:
    """Return the micro decoder's confidence in each token, for each place in a segment that it could have.

    Returns:
        [N, M - 1]: column j - 1 of token t is max_v p(v) given the base's state before token t - j and the tokens
        t - j .. t - 1; NaN where the segment would begin before anything was read.

    Raises:
        TooLarge: the text does not fit the base's context.
        TextError: the text holds a token that the model does not know.
    """
    max_joined = model.config.max_segment_length - 1
    out = np.full((len(ids), max_joined), np.nan, dtype=np.float32)
    fed = fed_ids(ids, prefix)
    if not len(fed) or not max_joined:
        return out
    check_readable(model, [ids], len(fed))
    embed = model.get_input_embeddings()
    device = model.device
    with torch.inference_mode():
        read = torch.tensor(fed, device=device)[None]
        macro = model.macro(embed(read), torch.ones_like(read), torch.arange(len(fed), device=device)[None])
        context = macro.context[0]
        first = len(ids) - len(fed)  # the token that the first state predicts; negative inside the prefix
        text = torch.tensor(ids, device=device)
        step = max(1, _CHUNK_BYTES // (4 * vocabulary(model) * max_joined))
        for begin in range(max(0, len(prefix) - 1), len(fed), step):
            start = torch.arange(begin, min(begin + step, len(fed)), device=device) + first
            index = start[:, None] + torch.arange(max_joined, device=device)
            state, _ = model.micro(context[start - first], embed(text[index.clamp(max=len(ids) - 1)]))
            logits = logits_of(model, state.flatten(0, 1))
            check_finite(model, ~logits.logsumexp(-1).isfinite(), "micro decoder's logits", "places")
            confidence = (logits.amax(-1) - logits.logsumexp(-1)).exp().view(index.shape).cpu().numpy()
            for j in range(max_joined):
                inside = (index[:, j] + 1 < len(ids)).cpu().numpy()
                out[index[:, j].cpu().numpy()[inside] + 1, j] = confidence[inside, j]
            if progress is not None:
                progress(min(1.0, (begin + step) / len(fed)))
    return out
