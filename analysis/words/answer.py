"""Scores the texts of a table under one model or two, and gives the table by word or by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import pandas as pd

from analysis.answer import Result
from analysis.query import ModelLoader
from analysis.score_registry import Unit
from analysis.view import ScoreView
from analysis.words.options import StimulusOptions
from analysis.words.pieces import PIECE, TablePieces, described
from analysis.words.stimuli import Stimuli, open_stimuli, read_stimuli
from analysis.words.tables import token_tables, word_tables
from data.corpus.budget import resolve
from data.corpus.documents import Corpus, CorpusEntry
from data.corpus.options import CorpusOptions
from data.corpus.progress import ScoringProgress
from data.corpus.scored_rows import ScoredRows
from data.corpus.scoring import score_rows
from data.corpus.shards import stream_windows, take_shard
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
        (table,) = self.tables(by, unit)
        return table

    def tables(self, by: str, unit: Unit, characters: int | None = None) -> Iterator[pd.DataFrame]:
        """The same in pieces; see `word_tables`."""
        sides = dict(zip(("a", "b") if len(self.rows) == 2 else ("",), self.rows, strict=True))
        return (word_tables if by == "word" else token_tables)(self.stimuli, sides, unit, characters)


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
    scorers = _scorers(specs, scoring, load, tell)
    rows = tuple(scorer.score(stimuli) for scorer in scorers)
    raw = ScoredStimuli(stimuli, tuple(scorer.loaded.facts for scorer in scorers), rows, _notes(scorers))

    def none(name: str, view: object) -> Any:
        raise MicroStepError("a table of texts has no figures")

    table = cache(partial(raw.table, options.by, unit))  # the summary reads it, too
    return Result(
        "score_table", raw, (), ScoreView(unit=unit), table,
        lambda: described([table()], len(stimuli.texts), [model.name for model in raw.models], options.by, unit),
        none, none, raw.notes,
    )  # fmt: skip


def score_pieces(
    specs: tuple[ModelSpec, ...],
    data: str | Path,
    options: StimulusOptions,
    scoring: CorpusOptions,
    unit: Unit,
    load: ModelLoader,
    tell: Tell = silent,
) -> TablePieces:
    """As `score_table`, piece by piece: memory does not grow with the number of texts.

    Raises:
        MicroStepError: a model or the table cannot be read, or memory does not suffice.
    """
    table = open_stimuli(data, options)
    scorers = _scorers(specs, scoring, load, tell)
    models = tuple(scorer.loaded.facts for scorer in scorers)

    def pieces() -> Iterator[pd.DataFrame]:
        for stimuli in table.pieces(PIECE):
            rows = tuple(scorer.score(stimuli) for scorer in scorers)
            yield from ScoredStimuli(stimuli, models, rows).tables(options.by, unit, PIECE)

    names = [model.name for model in models]
    return TablePieces(pieces, table.texts, names, options.by, unit, lambda: _notes(scorers), table.size)


class _StimulusScorer:
    """Scores texts under one model, piece by piece, and counts those that do not fit."""

    def __init__(self, loaded: LoadedModel, given: CorpusOptions, tell: Tell) -> None:
        self.loaded = loaded
        self._options, self._told = resolve(loaded, given, None)
        self._meter = ScoringProgress(tell, f"scoring under {loaded.facts.name}", 0)
        self._cut = 0

    def score(self, stimuli: Stimuli) -> ScoredRows:
        """The tokens of the texts, whose numbers in `document` begin with 0.

        Raises:
            TextError: a text cannot be read.
        """
        stream = stream_windows(self.loaded, cast(Corpus, _StimulusReader(stimuli)), self._options, (0, 0))
        parts, ahead = [], next(stream, None)
        while ahead is not None:
            windows, ahead = take_shard(stream, ahead, self._options.shard_tokens, None)
            if refused := next((window for window in windows if window.problem is not None), None):
                raise TextError(f"text {refused.document + 1}: {refused.problem}")
            self._cut += sum(window.left_out > 0 for window in windows)
            parts.append(score_rows(self.loaded, windows, self._options.batch_tokens or 1, self._meter))
        rows = ScoredRows.join(parts)
        return replace(rows, document=rows.document - stimuli.first)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the texts that were scored so far."""
        cut = f"texts whose ends are beyond the context, so that their last words are missing: {self._cut:,}"
        return (*self._told, *([cut] if self._cut else []))


class _StimulusReader:
    """The texts as the windows of a corpus are cut from it."""

    def __init__(self, stimuli: Stimuli) -> None:
        self._stimuli = stimuli

    def entries(self, start: int = 0) -> Iterator[CorpusEntry]:
        for number, document in enumerate(self._stimuli.documents[start:], self._stimuli.first + start):
            yield CorpusEntry(number, document, None, None)


def _scorers(
    specs: tuple[ModelSpec, ...], scoring: CorpusOptions, load: ModelLoader, tell: Tell
) -> list[_StimulusScorer]:
    return [_StimulusScorer(loaded, scoring, tell) for loaded in [load(spec) for spec in specs]]


def _notes(scorers: list[_StimulusScorer]) -> tuple[str, ...]:
    both = len(scorers) > 1
    return tuple(
        f"{letter} {scorer.loaded.facts.name}: {note}" if both else note
        for letter, scorer in zip("AB", scorers, strict=False)
        for note in scorer.notes
    )
