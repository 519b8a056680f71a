"""The documents of a corpus store as sides: all of them to be judged, one of them to be looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.segmentation.segmented_text import TokenizedText
from analysis.segmentation.single import PROMPT_APART
from data.corpus.rule_inputs import CorpusSource, continuation
from data.corpus.scored_rows import ROLE_NAMES
from data.corpus.store import open_store
from model.errors import TextError
from model.segmentation.segment import RULES, SegmentInputs
from model.storage.places import Place

_ARRAYS = ("entropy", "confidence", "margin", "surprisal", "word_start", "prompt", "row_start")


@dataclass(frozen=True, eq=False)
class StoreSides:
    """A store, read."""

    path: Place
    whole: TokenizedText  # every token, documents end to end
    source: CorpusSource

    @classmethod
    def read(cls, path: Place) -> StoreSides:
        """Read a complete store.

        Raises:
            TextError: the folder holds no store, an incomplete one, or a damaged one.
        """
        return cls.of(CorpusSource.read(open_store(path)))

    @classmethod
    def of(cls, source: CorpusSource) -> StoreSides:
        """The sides of a store that was read."""
        inputs, n = source.tokens.inputs, len(source.tokens.inputs)
        notes = source.store.notes if inputs.prompt is None else (*source.store.notes, PROMPT_APART)
        nowhere = np.full(n, -1, dtype=np.int32)
        none = np.zeros(n, dtype=bool)
        rows = source.tokens.rows
        whole = TokenizedText(
            key="A",
            facts=source.store.facts,
            text="",
            start=nowhere,
            end=nowhere,
            continuation=none,
            display=(),
            role=np.empty(0, "U9"),
            inputs=inputs,
            notes=notes,
            document=rows.document[np.diff(rows.offsets) > 0],
        )
        return cls(source.store.path, whole, source)

    @property
    def rows(self) -> int:
        """Documents, or windows of documents."""
        return len(self.source.tokens.rows)

    def title(self, number: int) -> str:
        """How a document begins."""
        row = self.source.tokens.rows.row(number)
        return f"{number}: {' '.join(row.text[:60].split())} ({len(row.ids):,} tokens)"

    def shown(self, number: int) -> TokenizedText:
        """One document, or one window of it.

        Raises:
            TextError: there is no such row, or it holds no token.
        """
        rows = self.source.tokens.rows
        if not 0 <= number < len(rows):
            raise TextError(f"the store holds {len(rows):,} documents, numbered from 0; there is no {number}")
        row, inputs = rows.row(number), self.source.tokens.inputs
        if not len(row.ids):
            raise TextError(f"document {number} of the store holds no token; choose another one")
        piece = slice(int(rows.offsets[number]), int(rows.offsets[number + 1]))
        arrays = {name: getattr(inputs, name) for name in _ARRAYS}
        own = SegmentInputs(**{name: array[piece] for name, array in arrays.items() if array is not None})
        inside = row.start >= 0
        return TokenizedText(
            key="A",
            facts=self.source.store.facts,
            text=row.text,
            start=np.where(inside, row.start - row.text_start, -1).astype(np.int32),
            end=np.where(inside, row.end - row.text_start, -1).astype(np.int32),
            continuation=continuation(rows)[piece],
            display=tuple(row.display),
            role=np.array(ROLE_NAMES)[row.role],
            inputs=own,
            notes=self.whole.notes,
        )


def from_store() -> tuple[str, ...]:
    """The rules that the scores of a store are enough for."""
    return tuple(name for name, rule in RULES.items() if rule.needs <= {"scores", "text"})
