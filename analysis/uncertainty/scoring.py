"""Scores one text under one model.

The text is cut to what the model's context and the machine's memory hold, and the notes say what was left out. Torch is
imported when a model runs, so that a page can show stored results without it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.uncertainty.result import ScoredText
from model.errors import TextError, TooLarge
from model.hub.loading import LoadedModel
from model.hub.memory import MemoryEstimate, estimate_memory, require_memory, tokens_that_fit
from model.progress import Progress
from model.scoring.scores import Method, TokenScores
from model.text.document import TextInput
from model.text.encoding import EncodedText, encode, token_strings

TOP_K = 10
LONGEST_TEXT = 20_000_000  # characters; tokenising more would block the machine for long


def encode_for(loaded: LoadedModel, text: TextInput, reply: bool = False, side: str = "") -> EncodedText:
    """Tokenise a text for one model.

    Args:
        loaded: the model.
        text: the text, with its chat template and BOS.
        reply: whether the model's own reply follows.
        side: which of the compared models it is, for messages.

    Raises:
        TextError: the text is empty, or cannot be tokenised.
        TooLarge: the text is far too long.
    """
    if not any(message.content or message.extra for message in text.document.messages):
        raise TextError("the text is empty; type or choose one")
    if len(text.document.text) > LONGEST_TEXT:
        raise TooLarge(f"the text has {len(text.document.text):,} characters; at most {LONGEST_TEXT:,} are read")
    try:
        return encode(text, loaded.tokenizer, reply)
    except TextError as error:
        which = f"model {side}, {loaded.facts.name}" if side else loaded.facts.name
        raise TextError(f"{which}: {error}") from error


def fit(loaded: LoadedModel, encoded: EncodedText) -> tuple[EncodedText, tuple[str, ...]]:
    """Cut a text to what the model's context and the machine's memory hold; returns it with notes on what was cut.

    Raises:
        TooLarge: not even one token fits.
    """
    from model.causal_lm.forward import context_length
    from model.scoring.token_scores import chunk_positions

    notes, limit = [], context_length(loaded.model)
    room = len(encoded) if limit is None else limit + 1 - len(encoded.prefix)  # the last token is never read
    if len(encoded) > room:
        notes.append(
            f"the first {room:,} of {len(encoded):,} tokens were scored: the model's context ends at {limit:,}"
        )
        encoded = encoded.head(room)
    try:
        require_memory(cost_of(loaded, len(encoded)), loaded.model.device)
    except TooLarge:
        n = tokens_that_fit(loaded, loaded.model.device, chunk=chunk_positions(loaded.facts.vocab_size))
        if n < 1:
            raise
        notes.append(f"the first {n:,} of {len(encoded):,} tokens were scored: more does not fit into the free memory")
        encoded = encoded.head(n)
    return encoded, tuple(notes)


def cost_of(loaded: LoadedModel, n_tokens: int) -> MemoryEstimate:
    """The memory that scoring a text of this length takes."""
    from model.scoring.token_scores import chunk_positions

    return estimate_memory(loaded, n_tokens, chunk=chunk_positions(loaded.facts.vocab_size))


def score_document(
    loaded: LoadedModel,
    text: TextInput,
    k: int = TOP_K,
    progress: Progress | None = None,
) -> ScoredText:
    """Score a document under one model.

    Raises:
        TextError, TooLarge: see `encode_for` and `fit`.
    """
    from model.scoring.caveats import remarks
    from model.scoring.token_scores import score

    encoded, cut = fit(loaded, encode_for(loaded, text))
    (scores,) = score(loaded.model, [encoded.ids], prefix=encoded.prefix, k=k, progress=progress)
    return scored_text(loaded, encoded, scores, (*remarks(loaded, encoded, text.chat), *cut))


def score_limited(
    loaded: LoadedModel,
    text: TextInput,
    window: int,
    method: Method = "exact",
    stride: int = 16,
    k: int = TOP_K,
    progress: Progress | None = None,
) -> ScoredText:
    """Score a document with at most `window` tokens of history; the notes say how the history was limited."""
    from model.scoring.caveats import remarks
    from model.scoring.limited_history import limited_history

    encoded, cut = fit(loaded, encode_for(loaded, text))
    limited = limited_history(loaded.model, encoded.ids, window, method, stride, encoded.prefix, k, progress)
    notes = (f"limited history, {limited.meaning}", *remarks(loaded, encoded, text.chat), *cut)
    return scored_text(loaded, encoded, limited.scores, notes)


def scored_text(
    loaded: LoadedModel,
    encoded: EncodedText,
    scores: TokenScores,
    notes: tuple[str, ...],
    generated: int = 0,
    ended: bool = False,
) -> ScoredText:
    """Scores together with the texts of their top-k ids."""
    notes = (*notes, *impossible(scores.surprisal))
    ids = np.unique(scores.topk_ids[scores.topk_ids >= 0])
    strings = dict(zip(ids.tolist(), token_strings(loaded.tokenizer, ids), strict=True))
    return ScoredText(loaded.facts, encoded, scores, strings, notes, generated, ended)


def impossible(surprisal: NDArray[np.float32]) -> tuple[str, ...]:
    """A note if the text has tokens of probability 0, which a logit of minus infinity gives."""
    count = int(np.isinf(surprisal).sum())
    if not count:
        return ()
    return (
        f"the model gave probability 0 to {count:,} of {len(surprisal):,} tokens: their surprisal is infinite, and so"
        " are its mean and bits per byte",
    )
