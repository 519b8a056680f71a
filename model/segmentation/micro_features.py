"""What a trained micro_step model says of where to cut: the micro decoder's confidence in each next token of a segment.

The macro states are those of the text read token by token. The rule `refined` then cuts by these confidences; a model
that was trained to merge reads merged segments when it writes, so that its own segments may differ a little.
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

_CHUNK_BYTES = 96 * 2**20  # of float32 logits


def refined_confidences(
    model: MicroStepForCausalLM, ids: NDArray[np.int64], prefix: Sequence[int] = (), progress: Progress | None = None
) -> NDArray[np.float32]:
    """The micro decoder's confidence in each token, for each place in a segment that it could have.

    Args:
        model: a micro_step model.
        ids: [N] a text's tokens without what the tokenizer puts first.
        prefix: ids that stand before the text.
        progress: told the share done; may raise to stop.

    Returns:
        [N, M - 1]: column j - 1 of token t is max_v p(v) given the base's state before token t - j and the tokens
        t - j .. t - 1; NaN where the segment would begin before anything was read.

    Raises:
        TooLarge: the text does not fit the base's context.
        TextError: it holds a token that the model does not know.
    """
    most = model.config.max_segment_length - 1
    out = np.full((len(ids), most), np.nan, dtype=np.float32)
    fed = fed_ids(ids, prefix)
    if not len(fed) or not most:
        return out
    check_readable(model, [ids], len(fed))
    embed = model.get_input_embeddings()
    device = model.device
    with torch.inference_mode():
        read = torch.tensor(fed, device=device)[None]
        macro = model.macro(embed(read), torch.ones_like(read), torch.arange(len(fed), device=device)[None])
        context = macro.context[0]
        first = len(ids) - len(fed)  # the token that the first state predicts; below 0 inside the prefix
        text = torch.tensor(ids, device=device)
        step = max(1, _CHUNK_BYTES // (4 * vocabulary(model) * most))
        for begin in range(max(0, len(prefix) - 1), len(fed), step):
            start = torch.arange(begin, min(begin + step, len(fed)), device=device) + first
            at = start[:, None] + torch.arange(most, device=device)
            state, _ = model.micro(context[start - first], embed(text[at.clamp(max=len(ids) - 1)]))
            logits = logits_of(model, state.flatten(0, 1))
            check_finite(model, ~logits.logsumexp(-1).isfinite(), "micro decoder's logits", "places")
            sure = (logits.amax(-1) - logits.logsumexp(-1)).exp().view(at.shape).cpu().numpy()
            for j in range(most):
                kept = (at[:, j] + 1 < len(ids)).cpu().numpy()
                out[at[:, j].cpu().numpy()[kept] + 1, j] = sure[kept, j]
            if progress is not None:
                progress(min(1.0, (begin + step) / len(fed)))
    return out
