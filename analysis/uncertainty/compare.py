"""Scores one text under two models and aligns the scores.

With one tokenizer, scores are compared token by token, with divergences (KL, JS). With two tokenizers, they are
compared in cells at whose ends both have a token boundary. Chat templates stay out of the comparison.
"""

from __future__ import annotations

import numpy as np

from analysis.uncertainty.alignment import common_cells
from analysis.uncertainty.result import Comparison, ScoredText, same_tokenizer
from analysis.uncertainty.scoring import TOP_K, encode_for, fit, scored_text
from model.causal_lm.forward import vocabulary
from model.errors import TextError
from model.hub.loading import LoadedModel
from model.progress import Progress, part
from model.scoring.caveats import remarks
from model.scoring.continuation import continue_text
from model.scoring.scores import Sampling
from model.scoring.token_scores import score, score_pair
from model.text.document import TextInput
from model.text.encoding import EncodedText, encode_reply


def compare(
    a: LoadedModel,
    b: LoadedModel,
    text: TextInput,
    k: int = TOP_K,
    progress: Progress | None = None,
) -> Comparison:
    """Score one document under two models and align the scores.

    Raises:
        TextError, TooLarge: as `encode_for` and `fit`.
    """
    encoded_a, cut_a = fit(a, encode_for(a, text, side="A"))
    encoded_b, cut_b = fit(b, encode_for(b, text, side="B"))
    divergences = None
    if _one_reading(a, encoded_a, b, encoded_b):
        scores_a, scores_b, divergences = score_pair(
            a.model, b.model, encoded_a.ids, prefix=encoded_a.prefix, k=k, progress=progress
        )
    else:
        (scores_a,) = score(a.model, [encoded_a.ids], encoded_a.prefix, k, progress=part(progress, 0, 0.5))
        (scores_b,) = score(b.model, [encoded_b.ids], encoded_b.prefix, k, progress=part(progress, 0.5, 1))
    scored_a = scored_text(a, encoded_a, scores_a, (*remarks(a, encoded_a, text.chat), *cut_a))
    scored_b = scored_text(b, encoded_b, scores_b, (*remarks(b, encoded_b, text.chat), *cut_b))
    cells = common_cells(text.document.text, encoded_a, ~scores_a.missing, encoded_b, ~scores_b.missing)
    return Comparison(text.document, scored_a, scored_b, cells, divergences)


def _one_reading(a: LoadedModel, encoded_a: EncodedText, b: LoadedModel, encoded_b: EncodedText) -> bool:
    return (
        same_tokenizer(a, b)
        and vocabulary(a.model) == vocabulary(b.model)
        and encoded_a.prefix == encoded_b.prefix
        and np.array_equal(encoded_a.ids, encoded_b.ids)
    )


def compare_continuations(
    a: LoadedModel,
    b: LoadedModel,
    text: TextInput,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    k: int = TOP_K,
    progress: Progress | None = None,
) -> Comparison:
    """Let each model continue the document, and score its own continuation while it writes."""
    sides = []
    for loaded, begin, side in ((a, 0.0, "A"), (b, 0.5, "B")):
        told = part(progress, begin, begin + 0.5)
        sides.append(continued(loaded, text, max_new_tokens, sampling, k, told, side))
    return Comparison(text.document, sides[0], sides[1], cells=None, divergences=None)


def continued(
    loaded: LoadedModel,
    text: TextInput,
    max_new_tokens: int,
    sampling: Sampling | None = None,
    k: int = TOP_K,
    progress: Progress | None = None,
    side: str = "",
) -> ScoredText:
    """One model's continuation of a document, with the scores it had while writing."""
    if text.document.messages[-1].role == "assistant" and text.chat:
        raise TextError("the conversation ends with an answer; remove it so that the models can write their own")
    prompt = encode_for(loaded, text, reply=True, side=side)
    count = iter(range(1, max_new_tokens + 1))
    continuation = continue_text(
        loaded.model,
        prompt.ids,
        max_new_tokens,
        sampling,
        prompt.prefix,
        k,
        on_token=(lambda *_: progress(next(count) / max_new_tokens)) if progress else None,
    )
    if progress:
        progress(1.0)
    whole = encode_reply(prompt, continuation.ids, loaded.tokenizer)
    written = f"{len(continuation.ids)} tokens"
    ending = (
        f"ended by itself after {written}, end token included" if continuation.ended else f"stopped after {written}"
    )
    notes = (*remarks(loaded, prompt, text.chat), ending)
    return scored_text(loaded, whole, continuation.scores, notes, len(continuation.ids), continuation.ended)
