"""The scores of a text, and the choices that they depend on. Nothing here needs torch: see token_scores.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import MicroStepError
from model.short_repr import ShortRepr

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

Method = Literal["exact", "strided", "banded"]  # of limiting the history: see limited_history.py


@dataclass(frozen=True, repr=False)
class TokenScores(ShortRepr):
    """Scores of N tokens. A token without any token before it is missing: NaN, rank 0, top-k ids -1."""

    entropy: NDArray[np.float32]  # [N] nats
    confidence: NDArray[np.float32]  # [N] probability of the likeliest token
    margin: NDArray[np.float32]  # [N] best minus second best probability
    surprisal: NDArray[np.float32]  # [N] nats
    rank: NDArray[np.int64]  # [N] 1 + number of tokens likelier than the true one
    topk_ids: NDArray[np.int64]  # [N, k] likeliest first
    topk_probability: NDArray[np.float32]  # [N, k]

    def __post_init__(self) -> None:
        n, k = len(self.entropy), self.topk_ids.shape[1]
        for name in ("entropy", "confidence", "margin", "surprisal", "rank"):
            if getattr(self, name).shape != (n,):
                raise ValueError(f"{name} must be [{n}], got {getattr(self, name).shape}")
        if self.topk_ids.shape != (n, k) or self.topk_probability.shape != (n, k):
            raise ValueError(f"top-k must be [{n}, {k}], got {self.topk_ids.shape}, {self.topk_probability.shape}")

    def __len__(self) -> int:
        return len(self.entropy)

    @property
    def excess_surprisal(self) -> NDArray[np.float32]:
        """[N] surprisal minus entropy, in nats: surprise beyond what the model expects; its expected value is 0."""
        excess: NDArray[np.float32] = self.surprisal - self.entropy
        return excess

    @property
    def missing(self) -> NDArray[np.bool_]:
        """[N] bool, True for tokens that could not be scored."""
        return np.isnan(self.entropy)

    @property
    def not_finite(self) -> NDArray[np.bool_]:
        """[N] bool, True for tokens that are not missing but whose logits were NaN or plus infinity."""
        return np.isnan(self.entropy) & (self.rank > 0)

    def likeliest(self, k: int) -> TokenScores:
        """Return the same scores with at most the k likeliest tokens."""
        return replace(self, topk_ids=self.topk_ids[:, :k].copy(), topk_probability=self.topk_probability[:, :k].copy())

    @classmethod
    def join(cls, parts: Sequence[TokenScores]) -> TokenScores:
        """Join the scores of consecutive parts of one text."""
        names = ("entropy", "confidence", "margin", "surprisal", "rank", "topk_ids", "topk_probability")
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})

    @classmethod
    def missing_scores(cls, n: int, k: int) -> TokenScores:
        """Return the scores of n missing tokens."""
        entropy, confidence, margin, surprisal = np.full((4, n), np.nan, dtype=np.float32)
        return cls(
            entropy,
            confidence,
            margin,
            surprisal,
            rank=np.zeros(n, dtype=np.int64),
            topk_ids=np.full((n, k), -1, dtype=np.int64),
            topk_probability=np.full((n, k), np.nan, dtype=np.float32),
        )


@dataclass(frozen=True, repr=False)
class Divergences(ShortRepr):
    """How far two models' next-token distributions lie apart at each of N tokens; KL and JS in nats. NaN if missing."""

    kl_ab: NDArray[np.float32]  # [N] sum_v pA ln(pA / pB)
    kl_ba: NDArray[np.float32]  # [N] sum_v pB ln(pB / pA)
    js: NDArray[np.float32]  # [N] Jensen-Shannon: half KL(A||M) + half KL(B||M), M = (A + B) / 2; at most ln 2
    tv: NDArray[np.float32]  # [N] total variation: half sum_v |pA - pB|, the probability that moved; 0 to 1


@dataclass(frozen=True, repr=False)
class LayerScores(ShortRepr):
    """What each layer would predict at N tokens, if the final norm and the head read its states: the logit lens.

    Row l holds the scores after l of L layers: row 0 is of the embeddings, and row L, the last, is the model's own
    prediction. A token without any token before it is missing: NaN, rank 0, top id -1.
    """

    entropy: NDArray[np.float32]  # [L + 1, N] nats
    confidence: NDArray[np.float32]  # [L + 1, N] probability of the layer's likeliest token
    kl: NDArray[np.float32]  # [L + 1, N] nats: sum_v p_L(v) ln(p_L(v) / p_l(v)); 0 at the last layer
    js: NDArray[np.float32]  # [L + 1, N] nats: Jensen-Shannon divergence between p_l and p_L
    surprisal: NDArray[np.float32]  # [L + 1, N] nats, of the actual token
    final_rank: NDArray[np.int32]  # [L + 1, N] the layer's rank of the token that is likeliest in the end
    rank: NDArray[np.int32]  # [L + 1, N] the layer's rank of the actual token
    top_id: NDArray[np.int32]  # [L + 1, N] the layer's likeliest token

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name).shape != self.entropy.shape or self.entropy.ndim != 2:
                raise ValueError(f"{name} must be [L + 1, N] as entropy, got {getattr(self, name).shape}")

    @property
    def count(self) -> int:
        """L, the number of layers."""
        return len(self.entropy) - 1

    @property
    def missing(self) -> NDArray[np.bool_]:
        """[N] bool, True for tokens that could not be scored."""
        missing: NDArray[np.bool_] = np.isnan(self.entropy[-1])
        return missing

    @cached_property
    def decided(self) -> NDArray[np.int32]:
        """[N] the layer at which each token is decided, 0 to L; -1 if missing.

        From this layer on, no token is likelier than the one that is likeliest in the end. Tied ones, which are common
        in bfloat16, do not delay it.
        """
        differs = self.final_rank > 1
        last = len(differs) - 1 - np.argmax(differs[::-1], axis=0)  # the last layer that differs, where one does
        return np.where(self.missing, -1, np.where(differs.any(0), last + 1, 0)).astype(np.int32)

    @classmethod
    def missing_scores(cls, layers: int, n: int) -> LayerScores:
        """Return the scores of n missing tokens."""
        nan, zero = np.full((layers + 1, n), np.nan, dtype=np.float32), np.zeros((layers + 1, n), dtype=np.int32)
        return cls(nan, nan, nan, nan, nan, zero, zero, zero - 1)

    def at(self, tokens: NDArray[np.integer] | NDArray[np.bool_]) -> LayerScores:
        """Return the scores of chosen tokens."""
        return LayerScores(**{name: getattr(self, name)[:, tokens] for name in self.__dataclass_fields__})

    @classmethod
    def join(cls, parts: Sequence[LayerScores]) -> LayerScores:
        """Join the scores of consecutive parts of one text."""
        names = cls.__dataclass_fields__
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts], axis=1) for name in names})


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: greedily at temperature 0, else sampled from the warped distribution."""

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise MicroStepError(
                f"temperature must be 0 or more and top-p in (0, 1], got {self.temperature} and {self.top_p}"
            )
        if not 0 <= self.seed < 2**63:
            raise MicroStepError(f"a seed must be from 0 to 2^63 - 1, got {self.seed}")

    @property
    def warpers(self) -> LogitsProcessorList:
        """The library's own warpers, in the order in which `generate` applies them."""
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        chosen = LogitsProcessorList()
        if self.temperature not in (0.0, 1.0):
            chosen.append(TemperatureLogitsWarper(self.temperature))
        if self.top_p < 1:
            chosen.append(TopPLogitsWarper(self.top_p))
        return chosen
