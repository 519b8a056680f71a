"""Scores the texts of a table under one model or two, and gives the table by word or by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import pandas as pd

from analysis.answer import Result
from analysis.query import ModelLoader
from analysis.score_registry import Unit, significant
from analysis.view import ScoreView
from analysis.words.options import StimulusOptions
from analysis.words.stimuli import Stimuli, read_stimuli, stored_stimuli
from analysis.words.tables import token_table, word_table
from data.corpus.budget import resolve
from data.corpus.documents import Corpus, CorpusEntry
from data.corpus.options import CorpusOptions
from data.corpus.progress import ScoringProgress
from data.corpus.scored_rows import ScoredRows
from data.corpus.scoring import score_rows
from data.corpus.shards import stream_windows, take_shard
from data.corpus.store import CorpusStore
from model.errors import MicroStepError, TextError
from model.hub.loading import LoadedModel, ModelSpec
from model.hub.model_info import ModelInfo
from model.progress import Tell, silent
from model.short_repr import ShortRepr


@dataclass(frozen=True, repr=False)
class ScoredStimuli(ShortRepr):
    """D texts, and the tokens of each model."""

    stimuli: Stimuli
    models: tuple[ModelInfo, ...]  # one or two
    rows: tuple[ScoredRows, ...]  # of each model
    notes: tuple[str, ...] = ()

    def table(self, by: str, unit: Unit) -> pd.DataFrame:
        """A row for each word or region, or for each token."""
        sides = dict(zip(("a", "b") if len(self.rows) == 2 else ("",), self.rows, strict=True))
        return (word_table if by == "word" else token_table)(self.stimuli, sides, unit)


def score_table(
    specs: tuple[ModelSpec, ...],
    data: str | Path | pd.DataFrame,
    options: StimulusOptions,
    scoring: CorpusOptions,
    unit: Unit,
    load: ModelLoader,
    tell: Tell = silent,
) -> Result[ScoredStimuli]:
    """Score the texts of a table.

    Raises:
        MicroStepError: a model or the table cannot be read, or memory does not suffice.
    """
    stimuli = read_stimuli(data, options)
    found, models, notes = [], [], []
    for letter, spec in zip("AB", specs, strict=False):
        loaded = load(spec)
        rows, told = _scored(loaded, stimuli, scoring, tell)
        found.append(rows)
        models.append(loaded.facts)
        notes += [f"{letter} {loaded.facts.name}: {note}" if len(specs) > 1 else note for note in told]
    raw = ScoredStimuli(stimuli, tuple(models), tuple(found), tuple(notes))
    return table_result("score_table", raw, options.by, unit)


def store_tables(stores: tuple[CorpusStore, ...], by: str, unit: Unit) -> Result[ScoredStimuli]:
    """The table of a store, or of two stores of one corpus.

    Raises:
        MicroStepError: the stores are of different texts.
    """
    rows = tuple(store.arrays() for store in stores)
    every = [stored_stimuli(store, each) for store, each in zip(stores, rows, strict=True)]
    if any(stimuli.texts != every[0].texts for stimuli in every):
        raise MicroStepError("the stores hold different texts; score the same corpus in the same way with both")
    notes = tuple(f"{store.facts.name}: {note}" for store in stores for note in store.notes)
    raw = ScoredStimuli(every[0], tuple(store.facts for store in stores), rows, notes)
    return table_result("corpus table", raw, by, unit)


def table_result(kind: str, raw: ScoredStimuli, by: str, unit: Unit) -> Result[ScoredStimuli]:
    def none(name: str, view: object) -> Any:
        raise MicroStepError("a table of texts has no figures")

    table = cache(partial(raw.table, by, unit))  # the summary reads it, too
    return Result(
        kind, raw, (), ScoreView(unit=unit), table, lambda: _summary(raw, table(), by, unit), none, none, raw.notes
    )


def _summary(raw: ScoredStimuli, table: pd.DataFrame, by: str, unit: Unit) -> str:
    means = []
    for letter, model in zip(("_a", "_b") if len(raw.models) == 2 else ("",), raw.models, strict=True):
        name = f"surprisal{letter}"
        own = table[f"scored_{name}" if f"scored_{name}" in table else name]
        means.append(f"{model.name} {significant(float(own.mean()))}")
    return (
        f"{len(raw.stimuli.texts):,} texts, {len(table):,} {by}s; mean surprisal a {by}: {', '.join(means)} {unit}"
        + ("; entropy_sum is the sum over a word's tokens" if by == "word" else "")
    )


class _StimulusReader:
    """The texts as the windows of a corpus are cut from it."""

    def __init__(self, entries: tuple[CorpusEntry, ...]) -> None:
        self._entries = entries

    def entries(self, start: int = 0) -> Iterator[CorpusEntry]:
        return iter(self._entries[start:])


def _scored(
    loaded: LoadedModel, stimuli: Stimuli, given: CorpusOptions, tell: Tell
) -> tuple[ScoredRows, tuple[str, ...]]:
    options, notes = resolve(loaded, given, None)
    stream = stream_windows(loaded, cast(Corpus, _StimulusReader(stimuli.entries)), options, (0, 0))
    meter = ScoringProgress(tell, f"scoring under {loaded.facts.name}", 0)
    parts, cut, ahead = [], 0, next(stream, None)
    while ahead is not None:
        pieces, ahead = take_shard(stream, ahead, options.shard_tokens, None)
        if refused := next((piece for piece in pieces if piece.problem is not None), None):
            raise TextError(f"text {refused.document + 1}: {refused.problem}")
        cut += sum(piece.left_out > 0 for piece in pieces)
        parts.append(score_rows(loaded, pieces, options.batch_tokens or 1, meter))
    if cut:
        notes = (*notes, f"the ends of {cut:,} texts are beyond the context, and their words are missing")
    return ScoredRows.join(parts), notes
