"""A cutting of a text as it was asked for: models, text and strategies, and the runs of the models that it takes.

Scores and extras are questions of their own, so that a change of a strategy's parameter asks a model nothing, and a
strategy that needs more than the scores asks for no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from analysis.query import Ask, ModelLoader, RunCost, scoring_cost
from analysis.segmentation.segmented_text import MemoCache, TokenizedText
from analysis.segmentation.single import FeatureValues, feature_values
from analysis.segmentation.strategy import Segmenter, Strategy
from analysis.uncertainty.result import ScoredText
from analysis.uncertainty.scoring import encode_for, fit, score_document
from model.hub.loading import LoadedModel, ModelSpec
from model.progress import Progress
from model.segmentation.features import Feature, FeatureOptions
from model.segmentation.segment import MAX_LENGTH
from model.text.document import TextInput


@dataclass(frozen=True)
class ScoresQuery:
    """The question for one model's scores of one text."""

    side: str
    spec: ModelSpec
    text: TextInput

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """Its one model."""
        return {self.side: self.spec}

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes."""
        return scoring_cost(loaded, self.text)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> ScoredText:
        """The scores."""
        return score_document(load(self.spec), self.text, progress=progress)


@dataclass(frozen=True)
class FeatureQuery:
    """The question for what some rule needs beyond these scores."""

    scores: ScoresQuery
    feature: Feature

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """Its one model."""
        return self.scores.specs

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes."""
        asked = self.scores
        return scoring_cost(loaded, asked.text, passes=self.feature.passes)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> FeatureValues:
        """The values."""
        asked = self.scores
        loaded = load(asked.spec)
        encoded, _ = fit(loaded, encode_for(loaded, asked.text))
        return feature_values(loaded, encoded, self.feature, progress)


@dataclass(frozen=True)
class CutRequest:
    """Strategies on one text under one or two models, or on the documents of a store."""

    models: tuple[tuple[str, ModelSpec], ...]  # ("A", spec), ("B", spec); none for a store
    text: TextInput | None  # None for a store
    strategies: tuple[Strategy, ...]
    max_length: int = MAX_LENGTH  # M
    how: FeatureOptions = field(default_factory=FeatureOptions)
    history: Feature | None = None  # the limited history that stands beside the full one
    store: str | None = None  # folder
    number: int = 0  # the row of the store that is shown token by token

    def scores(self) -> list[ScoresQuery]:
        """A question a model."""
        if self.text is None:
            return []
        return [ScoresQuery(side, spec, self.text) for side, spec in self.models]

    def segmenters(self) -> list[Segmenter]:
        """One a strategy."""
        return [self.segmenter(strategy) for strategy in self.strategies]

    def segmenter(self, strategy: Strategy) -> Segmenter:
        """One of the strategies, with all that decides where segments start."""
        return Segmenter(strategy, self.max_length, self.how)

    def extras(self) -> list[FeatureQuery]:
        """The questions beyond the scores, each once."""
        wanted = [segmenter.feature for segmenter in self.segmenters()]
        every = dict.fromkeys(feature for feature in (*wanted, self.history) if feature is not None)
        return [FeatureQuery(asked, feature) for asked in self.scores() for feature in every]

    def in_other_precision(self, facts: Sequence[str]) -> CutRequest:
        """The same in bfloat16, of models in float32; of others, in float32.

        Args:
            facts: the precision that each model came to.
        """
        models = tuple(
            (side, replace(spec, dtype="bfloat16" if dtype == "float32" else "float32"))
            for (side, spec), dtype in zip(self.models, facts, strict=True)
        )
        return replace(self, models=models, history=None)

    def answered(self, ask: Ask) -> Answered | None:
        """Ask all questions; None while a model has no scores."""
        scores = [found for found in ask(self.scores()) if found is not None]
        if len(scores) < len(self.models):
            return None
        questions = self.extras()
        extras = {asked: found for asked, found in zip(questions, ask(questions), strict=True) if found is not None}
        return Answered(self, tuple(scores), extras)


@dataclass(frozen=True)
class Answered:
    """The answers to a request's questions: all scores, and of the features those that are there."""

    request: CutRequest
    scores: tuple[ScoredText, ...]
    extras: Mapping[FeatureQuery, FeatureValues]

    def other_precision(self, ask: Ask) -> Answered | None:
        """The same questions to the models in the other precision."""
        return self.request.in_other_precision([scored.facts.dtype for scored in self.scores]).answered(ask)

    def sides(self, kept: MemoCache) -> tuple[TokenizedText, ...]:
        """The sides: the same objects as long as the answers are the same.

        Raises:
            MicroStepError: see `TokenizedText.of`.
        """
        answered = (*self.scores, *self.extras.values())
        key = ("sides", self.request.how, *map(id, answered))
        return kept.get(key, lambda: (answered, tuple(self._sides())))[1]

    def _sides(self) -> list[TokenizedText]:
        text = "" if self.request.text is None else self.request.text.document.text
        return [
            TokenizedText.of(
                asked.side,
                text,
                scores,
                self.request.how,
                {each.feature: found for each, found in self.extras.items() if each.scores == asked},
            )
            for asked, scores in zip(self.request.scores(), self.scores, strict=True)
        ]
