"""Which documents two stores have in common: those with the same text, whatever their numbers and tokenizers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.ranking.document_scores import ScoredDocuments
from model.errors import MicroStepError
from model.short_repr import ShortRepr

Ints = NDArray[np.int64]


@dataclass(frozen=True, repr=False, eq=False)
class Pairing(ShortRepr):
    """The P documents that are ranked, by their places in the stores; without a second store, those of the first."""

    a: ScoredDocuments
    b: ScoredDocuments | None
    at_a: Ints  # [P]
    at_b: Ints  # [P]
    only_a: int  # documents of A whose text B does not hold
    only_b: int
    other_text: int  # of those, numbers that both stores hold with different texts

    @property
    def paired(self) -> bool:
        return self.b is not None

    @property
    def same_tokens(self) -> bool:
        """Whether the stores' tokenizers are the same."""
        return self.b is None or self.a.store.facts.tokenizer_hash == self.b.store.facts.tokenizer_hash

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the match."""
        if self.b is None:
            return ()
        said = []
        if self.only_a or self.only_b:
            which = f"; {self.other_text:,} have the same number and another text" if self.other_text else ""
            said.append(
                f"documents without a match, which are left out: {self.only_a:,} of A, {self.only_b:,} of B{which}"
            )
        if not self.same_tokens:
            said.append(
                "the tokenizers differ, so means per token are over different tokens; compare bits per byte, each over"
                " the text that its model scored"
            )
        cut = int((self.a.cut[self.at_a] | self.b.cut[self.at_b]).sum())
        if cut:
            said.append(f"documents of which only a part was scored: {cut:,}")
        return tuple(said)


@lru_cache(maxsize=2)
def pairing(a: ScoredDocuments, b: ScoredDocuments | None = None) -> Pairing:
    """Match the documents of two stores by the hash of their text; the nth copy of a text matches the nth copy.

    Raises:
        MicroStepError: no text is in both.
    """
    if b is None:
        every = np.arange(len(a))
        return Pairing(a, None, every, every, 0, 0, 0)
    first, second = (_keyed(side) for side in (a, b))
    both = first.merge(second, on=["key", "copy"], suffixes=("_a", "_b"))
    if both.empty:
        raise MicroStepError(
            f"{a.store.path} and {b.store.path} have no text in common; score the same corpus with both models"
        )
    at_a, at_b = (both[name].to_numpy(dtype=np.int64) for name in ("place_a", "place_b"))
    alone_a, alone_b = np.delete(a.number, at_a), np.delete(b.number, at_b)
    return Pairing(a, b, at_a, at_b, len(alone_a), len(alone_b), len(np.intersect1d(alone_a, alone_b)))


def _keyed(side: ScoredDocuments) -> pd.DataFrame:
    table = pd.DataFrame({"key": side.key, "place": np.arange(len(side))})
    return table.assign(copy=table.groupby("key").cumcount())
