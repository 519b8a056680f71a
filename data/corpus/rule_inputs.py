"""The tokens of a store as the segmentation rules look at them, rows end to end.

Knows how rows, texts and gathered values fit together; nothing about reports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.corpus.features import GatheredRows, gathers, read_gathered
from data.corpus.scored_rows import ROLE_NAMES, ScoredRows
from data.corpus.store import CorpusStore
from model.errors import MicroStepError, NumericalError
from model.segmentation.features import FEATURES
from model.segmentation.rules import NO_MICRO_STEP
from model.segmentation.segment import RULES, SegmentInputs, find_rule, valid_parameters, word_starts
from model.short_repr import ShortRepr


@dataclass(frozen=True, repr=False)
class CorpusTokens(ShortRepr):
    """N tokens of R rows of a store."""

    rows: ScoredRows
    inputs: SegmentInputs  # of the N tokens, rows end to end
    numbers: NDArray[np.int64]  # [R] of the rows in the store
    notes: tuple[str, ...] = ()  # what a reader must know beside the store's own notes

    def __post_init__(self) -> None:
        if len(self.inputs) != int(self.rows.offsets[-1]) or len(self.numbers) != len(self.rows):
            raise ValueError(f"{len(self.inputs)} tokens in {len(self.numbers)} rows do not fit {len(self.rows)} rows")


@dataclass(frozen=True, repr=False)
class CorpusSource(ShortRepr):
    """All that is stored of one corpus under one model."""

    store: CorpusStore
    tokens: CorpusTokens  # of every row, with the scores
    gathered: tuple[GatheredRows, ...]

    @classmethod
    def read(cls, store: CorpusStore) -> CorpusSource:
        """Read a store and all that was gathered beside it."""
        rows = store.arrays()
        _check_finite(store, rows)
        tokens = CorpusTokens(rows, _inputs(rows, bool(store.manifest["parameters"]["chat"])), np.arange(len(rows)))
        return cls(store, tokens, tuple(read_gathered(store, what) for what in gathers(store)))

    def rules(self) -> list[str]:
        """The rules that can be applied, in the registry's order."""
        held = {each.spec.feature.need for each in self.gathered if not each.spec.begin} | {"scores", "text"}
        return [name for name, rule in RULES.items() if rule.needs <= held]

    def ready(self, rule: str, given: Mapping[str, float]) -> tuple[CorpusTokens, dict[str, float]]:
        """The tokens that a rule can be applied to, and its parameters; window and layer as they were gathered."""
        needs, setting = find_rule(rule).needs, dict(given)
        valid_parameters(rule, given)
        further = needs & FEATURES.keys()
        if not further:
            return self.tokens, setting
        (need,) = further
        name = FEATURES[need].parameter
        fitting = [each for each in self.gathered if each.spec.feature.need == need and not each.spec.begin]
        if name is not None and name in given:
            fitting = [each for each in fitting if getattr(each.spec.feature, name) == given[name]]
        if not fitting:
            if need == "micro_step" and not self.store.facts.trained_micro_step:
                raise MicroStepError(NO_MICRO_STEP)
            wish = f" of {name} {given[name]:g}" if name is not None and name in given else ""
            raise MicroStepError(
                f"{rule} needs {need}{wish}, which was not gathered beside {self.store.path};"
                f" `micro-step corpus gather {self.store.path} --model MODEL --strategy {rule}` does it"
            )
        fullest = max(fitting, key=lambda each: len(each.rows))
        if name is not None:
            setting[name] = getattr(fullest.spec.feature, name)
        return with_gathered(self.tokens, fullest), setting


def _check_finite(store: CorpusStore, rows: ScoredRows) -> None:
    """A token that something stands before has a rank, and so must have scores."""
    bad = np.isnan(rows.entropy) & (rows.rank > 0)
    if bad.any():
        documents = len(np.unique(rows.document[row_of(rows.offsets)[bad]]))
        raise NumericalError(
            f"{store.path} holds scores that are not finite ({store.facts.name} in {store.facts.dtype}): of"
            f" {int(bad.sum()):,} of {len(bad):,} tokens in {documents:,} of {store.documents:,} documents; score the"
            " corpus again as bfloat16 or float32"
        )


def with_gathered(tokens: CorpusTokens, gathered_rows: GatheredRows, begin: int = 0) -> CorpusTokens:
    """The rows that values were gathered for, with these values.

    Args:
        tokens: of every row of the store.
        gathered_rows: of some of its rows.
        begin: leave out so many tokens of each row, and rows that are no longer.
    """
    rows, numbers = tokens.rows, gathered_rows.rows.astype(np.int64)
    lengths = np.diff(rows.offsets)[numbers]
    if not np.array_equal(lengths, np.diff(gathered_rows.offsets)):
        raise MicroStepError(f"{gathered_rows.spec.name} was gathered for other rows; remove it and gather it again")
    kept = lengths > begin
    here, position = _positions(gathered_rows.offsets[:-1][kept] + begin, lengths[kept] - begin)
    there, _ = _positions(rows.offsets[:-1][numbers][kept] + begin, lengths[kept] - begin)
    old = tokens.inputs
    names = [name for name in (*_SCORED, "prompt") if getattr(old, name) is not None]
    gathered: dict[str, Any] = {name: values[here] for name, values in gathered_rows.values.items()}
    inputs = SegmentInputs(
        **{name: getattr(old, name)[there] for name in names},
        **gathered,
        **gathered_rows.spec.feature.settings,
        row_start=position == 0,
    )
    return CorpusTokens(_take(rows, numbers[kept], there, lengths[kept] - begin), inputs, numbers[kept])


_SCORED = ("entropy", "confidence", "margin", "surprisal", "word_start")


def continuation(rows: ScoredRows) -> NDArray[np.bool_]:
    """[N] tokens that start inside a character, which the token before touches too."""
    inside = np.zeros(len(rows.start), dtype=bool)
    inside[1:] = (rows.start[1:] < rows.end[:-1]) & (rows.start[1:] >= 0)
    inside[row_firsts(rows.offsets)] = False
    return inside


def row_firsts(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first positions of the rows that hold any."""
    return offsets[:-1][np.diff(offsets) > 0]


def row_of(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """[N] the row of each position."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _inputs(rows: ScoredRows, chat: bool) -> SegmentInputs:
    """What the rules look at, of rows end to end; under a chat template the prompt is kept apart, as `gather` does."""
    first = np.zeros(len(rows.ids), dtype=bool)
    first[row_firsts(rows.offsets)] = True
    prompt = None
    if chat:
        answer = rows.role == ROLE_NAMES.index("assistant")
        answered = np.bincount(row_of(rows.offsets), answer, minlength=len(rows)) > 0
        prompt = ~answer & answered[row_of(rows.offsets)]
    return SegmentInputs(
        entropy=rows.entropy,
        confidence=rows.confidence,
        margin=rows.margin,
        surprisal=rows.surprisal,
        word_start=_word_starts(rows) | first,
        prompt=prompt,
        row_start=first,
    )


def _word_starts(rows: ScoredRows) -> NDArray[np.bool_]:
    """[N] by the texts end to end; the template's tokens, which have no place in them, stand apart."""
    row = row_of(rows.offsets)
    base = np.concatenate([[0], np.cumsum([len(text) for text in rows.text])])[:-1] - rows.text_start
    inside = rows.start >= 0
    at = np.where(inside, rows.start + base[row], 0)
    return word_starts("".join(rows.text), at, continuation(rows)) | ~inside


def _positions(starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices starts[i] .. starts[i] + lengths[i] - 1 end to end, and the place of each in its stretch."""
    before = np.concatenate([[0], np.cumsum(lengths)])
    place = np.arange(before[-1]) - np.repeat(before[:-1], lengths)
    return np.repeat(starts, lengths) + place, place


def _take(
    rows: ScoredRows, numbers: NDArray[np.int64], tokens: NDArray[np.int64], lengths: NDArray[np.int64]
) -> ScoredRows:
    per_row = ("document", "piece", "document_tokens", "text_start")
    per_token = ("ids", "entropy", "confidence", "margin", "surprisal", "rank", "start", "end", "role")
    return ScoredRows(
        text=tuple(rows.text[i] for i in numbers.tolist()),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        **{name: getattr(rows, name)[numbers] for name in per_row},
        **{name: getattr(rows, name)[tokens] for name in per_token},
    )
