"""Continue a text with a model, scoring each token as it is generated, without a second pass.

Scores are of the model's own distribution, before temperature or top-p. It takes and returns ids and knows nothing
about texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from model.causal_lm.finite import not_finite
from model.causal_lm.forward import context_length, logits_of
from model.causal_lm.past import Past
from model.decoding.generation_config import end_ids
from model.errors import TextError, TooLarge
from model.scoring.scores import Sampling, TokenScores
from model.scoring.token_scores import reduce_in_chunks, reduce_logits
from model.short_repr import ShortRepr


@dataclass(frozen=True, repr=False)
class Continuation(ShortRepr):
    """N prompt tokens and T generated ones, with the scores of all."""

    ids: NDArray[np.int64]  # [T] generated, including the end-of-text token if the model produced one
    scores: TokenScores  # of [N + T] tokens: the prompt's, then the continuation's
    ended: bool  # the model ended its text itself


def continue_text(
    model: PreTrainedModel,
    prompt: NDArray[np.int64],
    max_new_tokens: int,
    sampling: Sampling | None = None,
    prefix: Sequence[int] = (),
    k: int = 5,
    on_token: Callable[[int, TokenScores], None] | None = None,
) -> Continuation:
    """Continue a prompt [N] by up to `max_new_tokens`, scoring prompt and continuation in the same pass.

    Args:
        model: any decoder-only language model.
        prompt: token ids without the tokenizer's prefix.
        max_new_tokens: the largest T.
        sampling: None: greedy.
        prefix: ids before the prompt.
        k: number of likeliest tokens to keep.
        on_token: called with each new id and its scores; may raise to stop.

    Raises:
        TextError: there is nothing to continue.
        TooLarge: prompt and continuation do not fit the model's context.
        NumericalError: the model's logits are not finite.
    """
    sampling = sampling or Sampling()
    fed = np.concatenate([np.asarray(prefix, dtype=np.int64), prompt])
    if not len(fed):
        raise TextError("there is no text to continue, and this model has no BOS to start from; type a prompt")
    limit = context_length(model)
    if limit is not None and len(fed) + max_new_tokens > limit:
        raise TooLarge(
            f"{len(fed)} prompt tokens and {max_new_tokens} new ones do not fit this model's context of {limit}"
        )
    warpers, generator = sampling.warpers, torch.Generator().manual_seed(sampling.seed)
    ends = end_ids(model)
    with torch.inference_mode():
        past = Past(model)
        ids = torch.as_tensor(fed, device=model.device)[None]
        hidden = past.read(ids)
        scored = prompt if prefix else prompt[1:]
        parts = [
            TokenScores.missing_scores(len(prompt) - len(scored), k),
            reduce_in_chunks(model, hidden[0, len(fed) - len(scored) - 1 : -1], scored, k),
        ]
        new: list[int] = []
        while len(new) < max_new_tokens and not (new and new[-1] in ends):
            logits = logits_of(model, hidden[0, -1:])
            if sampling.temperature == 0:
                chosen = logits.argmax(-1)
            else:
                probability = warpers(ids, logits.clone()).softmax(-1).cpu()
                if bool(probability.isnan().any()):
                    raise not_finite(model, f"new token {len(new) + 1} has logits")
                chosen = torch.multinomial(probability, 1, generator=generator)[:, 0].to(model.device)
            parts.append(reduce_logits(logits, chosen, k))
            if parts[-1].not_finite.any():
                raise not_finite(model, f"new token {len(new) + 1} has logits")
            new.append(int(chosen))
            if on_token is not None:
                on_token(new[-1], parts[-1])
            if len(new) < max_new_tokens and new[-1] not in ends:
                ids = torch.cat([ids, chosen[None]], dim=1)
                hidden = past.read(chosen[None])
    return Continuation(
        ids=np.array(new, dtype=np.int64), scores=TokenScores.join(parts), ended=bool(new) and new[-1] in ends
    )
