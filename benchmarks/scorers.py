"""The ways to score a text that are compared, each as its users would write it.

A scorer takes a loaded model and one text, computes, and throws the result away. Nothing here measures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from model.causal_lm.forward import body, fed_ids, logits_of, vocabulary
from model.errors import TextError
from model.hub.loading import LoadedModel
from model.scoring.token_scores import chunk_positions
from model.scoring.token_scores import score as score_tokens

TOP_K = 5


@dataclass(frozen=True)
class Excerpt:
    """The first N tokens of a text, as one model reads them."""

    text: str
    ids: NDArray[np.int64]  # [N] without what the tokenizer puts first
    prefix: Sequence[int]

    @property
    def fed(self) -> Tensor:
        """[1, N] what a plain forward pass is given: BOS, where the tokenizer puts one, and the text."""
        return torch.as_tensor(fed_ids(self.ids, self.prefix) if self.prefix else self.ids)[None]


@dataclass(frozen=True)
class Scorer:
    name: str
    computes: str
    run: Callable[[LoadedModel, Excerpt], object]
    logits_held: int  # how many float32 arrays of [N, V] it holds at its peak, by its own code
    package: str | None = None  # what must be installed for it

    def missing(self) -> str | None:
        return f"{self.package} is not installed" if self.package and find_spec(self.package) is None else None


def excerpt(loaded: LoadedModel, text: str, n: int) -> Excerpt:
    """The longest start of a text that the tokenizer reads as at most n tokens."""
    encoding = loaded.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    if len(encoding["input_ids"]) < 2:
        raise TextError("the text has fewer than two tokens; give a longer one")
    end = encoding["offset_mapping"][:n][-1][1]
    ids = loaded.tokenizer(text[:end], add_special_tokens=False)["input_ids"]
    whole = loaded.tokenizer(text[:end])["input_ids"]
    lead = len(whole) - len(ids)
    return Excerpt(text[:end], np.asarray(ids, dtype=np.int64), tuple(whole[:lead]) if whole[lead:] == ids else ())


def _bare(loaded: LoadedModel, text: Excerpt) -> object:
    with torch.inference_mode():
        return loaded.model(text.fed.to(loaded.model.device)).logits


def _discarded(loaded: LoadedModel, text: Excerpt) -> object:
    with torch.inference_mode():
        hidden = body(loaded.model)(input_ids=text.fed.to(loaded.model.device), use_cache=False).last_hidden_state[0]
        for piece in hidden.split(chunk_positions(vocabulary(loaded.model))):
            logits_of(loaded.model, piece)
    return None


def _ours(loaded: LoadedModel, text: Excerpt) -> object:
    return score_tokens(loaded.model, [text.ids], prefix=text.prefix, k=TOP_K)


def _naive(loaded: LoadedModel, text: Excerpt) -> object:
    with torch.inference_mode():
        logits = loaded.model(text.fed.to(loaded.model.device)).logits[0].float()
        predicted = torch.as_tensor(text.ids if text.prefix else text.ids[1:], device=logits.device)[:, None]
        log_p = logits.log_softmax(-1)[: len(predicted)]  # [N, V]
        p = log_p.exp()
        true = log_p.gather(-1, predicted)
        best = p.topk(TOP_K)
        entropy = -(p * log_p).sum(-1)
        margin = best.values[:, 0] - best.values[:, 1]
        rank = 1 + (log_p > true).sum(-1)
        return [x.cpu().numpy() for x in (entropy, best.values, best.indices, margin, -true, rank)]


def _minicons(loaded: LoadedModel, text: Excerpt) -> object:
    scorer: Any = import_module("minicons.scorer").IncrementalLMScorer(loaded.model, "cpu", tokenizer=loaded.tokenizer)
    return scorer.token_score(text.text, surprisal=True)


BARE = Scorer("bare", "model(input_ids): body and LM head, logits [N, V], no scores", _bare, 1)
SCORERS = (
    BARE,
    Scorer("discarded", "the same, LM head in our chunks, logits thrown away", _discarded, 0),
    Scorer("ours", f"entropy, confidence, margin, surprisal, rank, top-{TOP_K}", _ours, 0),
    Scorer("naive", "the same scores from whole [N, V] arrays", _naive, 4),
    Scorer("minicons", "surprisal alone: token_score(text, surprisal=True)", _minicons, 3, package="minicons"),
)
