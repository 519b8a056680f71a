"""The tokens of a store as the segmentation rules look at them, rows end to end.

Knows how rows, texts and gathered values fit together; nothing about reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.corpus.features import FeatureSpec, GatheredRows, gathers, read_gathered
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
class CorpusPiece(ShortRepr):
    """The N tokens of R consecutive rows of a store, as the rules look at them."""

    first: int  # number of the first row in the store
    offsets: NDArray[np.int64]  # [R + 1]
    inputs: SegmentInputs  # of the N tokens, with the scores
    gathered: tuple[GatheredRows, ...]  # values for some of these rows

    @property
    def rows(self) -> slice:
        """Its rows among those of the store."""
        return slice(self.first, self.first + len(self.offsets) - 1)

    def inputs_from(self, spec: FeatureSpec, begin: int) -> tuple[SegmentInputs, NDArray[np.int64], NDArray[np.int64]]:
        """As `with_gathered`: the inputs, [R'] the rows among those of the store, and [R' + 1] their offsets."""
        values = next(each for each in self.gathered if each.spec == spec)
        inputs, numbers, _, lengths = _with_values(self.inputs, self.offsets, values, self.first, begin)
        return inputs, self.first + numbers, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def inputs_with(self, spec: FeatureSpec | None) -> tuple[SegmentInputs, NDArray[np.bool_]]:
        """What a rule looks at, and [R] the rows that have it: all, or those with gathered values."""
        known = np.ones(len(self.offsets) - 1, dtype=bool)
        if spec is None:
            return self.inputs, known
        inputs, numbers, _ = self.inputs_from(spec, 0)
        known[:] = False
        known[numbers - self.first] = True
        return inputs, known


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
        tokens = CorpusTokens(rows, inputs_of(rows, bool(store.manifest["parameters"]["chat"])), np.arange(len(rows)))
        return cls(store, tokens, tuple(read_gathered(store, what) for what in gathers(store)))

    @property
    def specs(self) -> tuple[FeatureSpec, ...]:
        """What was gathered."""
        return tuple(each.spec for each in self.gathered)

    @property
    def document(self) -> NDArray[np.int32]:
        """[R] the document of each row."""
        return self.tokens.rows.document

    @property
    def offsets(self) -> NDArray[np.int64]:
        """[R + 1] the tokens of each row."""
        return self.tokens.rows.offsets

    def pieces(self) -> Iterator[CorpusPiece]:
        """All rows, as one piece."""
        yield CorpusPiece(0, self.offsets, self.tokens.inputs, self.gathered)

    def texts(self) -> Iterator[ScoredRows]:
        """The rows of each piece, with their texts."""
        yield self.tokens.rows

    def rules(self) -> list[str]:
        """The rules that can be applied, in the registry's order."""
        return rules_for(self.specs)

    def ready(self, rule: str, given: Mapping[str, float]) -> tuple[CorpusTokens, dict[str, float]]:
        """The tokens that a rule can be applied to, and its parameters; window and layer as they were gathered."""
        spec, setting = settle(self.store, self.specs, rule, given)
        found = next((each for each in self.gathered if each.spec == spec), None)
        return self.tokens if found is None else with_gathered(self.tokens, found), setting


def rules_for(specs: Sequence[FeatureSpec]) -> list[str]:
    """The rules that can be applied to a store beside which this was gathered, in the registry's order."""
    held = {spec.feature.need for spec in specs if not spec.begin} | {"scores", "text"}
    return [name for name, rule in RULES.items() if rule.needs <= held]


def settle(
    store: CorpusStore, specs: Sequence[FeatureSpec], rule: str, given: Mapping[str, float]
) -> tuple[FeatureSpec | None, dict[str, float]]:
    """What a rule needs of what was gathered beside a store (None: nothing), and its parameters with window or layer.

    Raises:
        MicroStepError: the parameters are not valid, or what it needs was not gathered.
    """
    needs, setting = find_rule(rule).needs, dict(given)
    valid_parameters(rule, given)
    further = needs & FEATURES.keys()
    if not further:
        return None, setting
    (need,) = further
    name = FEATURES[need].parameter
    fitting = [spec for spec in specs if spec.feature.need == need and not spec.begin]
    if name is not None and name in given:
        fitting = [spec for spec in fitting if getattr(spec.feature, name) == given[name]]
    if not fitting:
        if need == "micro_step" and not store.facts.trained_micro_step:
            raise MicroStepError(NO_MICRO_STEP)
        wish = f" of {name} {given[name]:g}" if name is not None and name in given else ""
        raise MicroStepError(
            f"{rule} needs {need}{wish}, which was not gathered beside {store.path};"
            f" `micro-step corpus gather {store.path} --model MODEL --strategy {rule}` does it"
        )
    fullest = min(fitting, key=lambda spec: spec.every)
    if name is not None:
        setting[name] = getattr(fullest.feature, name)
    return fullest, setting


def _check_finite(store: CorpusStore, rows: ScoredRows) -> None:
    refuse_missing_scores(store, *missing_scores(rows))


def missing_scores(rows: ScoredRows) -> tuple[int, set[int]]:
    """How many tokens that something stands before, and so have a rank, lack scores; and the documents they are of."""
    bad = np.isnan(rows.entropy) & (rows.rank > 0)
    return int(bad.sum()), set(np.unique(rows.document[row_of(rows.offsets)[bad]]).tolist())


def refuse_missing_scores(store: CorpusStore, tokens: int, documents: set[int]) -> None:
    """Raise NumericalError if a store has such tokens."""
    if tokens:
        raise NumericalError(
            f"{store.path} holds scores that are not finite ({store.facts.name} in {store.facts.dtype}): of"
            f" {tokens:,} of {store.tokens:,} tokens in {len(documents):,} of {store.documents:,} documents; score the"
            " corpus again as bfloat16 or float32"
        )


def with_gathered(tokens: CorpusTokens, gathered_rows: GatheredRows, begin: int = 0) -> CorpusTokens:
    """The rows that values were gathered for, with these values.

    Args:
        tokens: of every row of the store.
        gathered_rows: of some of its rows.
        begin: leave out so many tokens of each row, and rows that are no longer.
    """
    rows = tokens.rows
    inputs, numbers, there, lengths = _with_values(tokens.inputs, rows.offsets, gathered_rows, 0, begin)
    return CorpusTokens(_take(rows, numbers, there, lengths), inputs, numbers)


def _with_values(
    old: SegmentInputs, offsets: NDArray[np.int64], gathered_rows: GatheredRows, first: int, begin: int = 0
) -> tuple[SegmentInputs, NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The tokens of those of the rows that values were gathered for, with these.

    Args:
        old: the tokens of R rows.
        offsets: [R + 1] of these rows.
        gathered_rows: of some of these rows.
        first: number of the first row in the store.
        begin: as in `with_gathered`.

    Returns:
        The inputs; the rows that are kept, from 0 on; the indices of their tokens; and their numbers of tokens.
    """
    numbers = gathered_rows.rows.astype(np.int64) - first
    lengths = np.diff(offsets)[numbers]
    if not np.array_equal(lengths, np.diff(gathered_rows.offsets)):
        raise MicroStepError(f"{gathered_rows.spec.name} was gathered for other rows; remove it and gather it again")
    kept = lengths > begin
    here, position = _positions(gathered_rows.offsets[:-1][kept] + begin, lengths[kept] - begin)
    there, _ = _positions(offsets[:-1][numbers][kept] + begin, lengths[kept] - begin)
    names = [name for name in (*_SCORED, "prompt") if getattr(old, name) is not None]
    gathered: dict[str, Any] = {name: values[here] for name, values in gathered_rows.values.items()}
    inputs = SegmentInputs(
        **{name: getattr(old, name)[there] for name in names},
        **gathered,
        **gathered_rows.spec.feature.settings,
        row_start=position == 0,
    )
    return inputs, numbers[kept], there, lengths[kept] - begin


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


def inputs_of(rows: ScoredRows, chat: bool) -> SegmentInputs:
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
