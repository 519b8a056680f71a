"""A cutting of a text as it was asked for: models, text and strategies, and the runs of the models that it takes.

Scores and extras are questions of their own, so that a change of a strategy's parameter asks a model nothing, and a
strategy that needs more than the scores asks for no more than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from analysis.query import ModelLoader, RunCost, scoring_cost
from analysis.segmentation.features import Extra, FeatureOptions, FeatureValues, WindowFeature, features_needed
from analysis.segmentation.segmented_text import TokenizedText
from analysis.segmentation.strategy import Strategy
from analysis.uncertainty.result import ScoredText
from analysis.uncertainty.scoring import encode_for, fit, score_document
from model.causal_lm.forward import Progress
from model.hub.loading import LoadedModel, ModelSpec
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
    extra: Extra

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """Its one model."""
        return self.scores.specs

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes."""
        asked = self.scores
        return scoring_cost(loaded, asked.text, passes=self.extra.passes)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> FeatureValues:
        """What the extra gives."""
        asked = self.scores
        loaded = load(asked.spec)
        encoded, _ = fit(loaded, encode_for(loaded, asked.text))
        return self.extra.gather(loaded, encoded, progress)


@dataclass(frozen=True)
class CutRequest:
    """Strategies on one text under one or two models, or on the documents of a store."""

    models: tuple[tuple[str, ModelSpec], ...]  # ("A", spec), ("B", spec); none for a store
    text: TextInput | None  # None for a store
    strategies: tuple[Strategy, ...]
    max_length: int = MAX_LENGTH  # M
    how: FeatureOptions = field(default_factory=FeatureOptions)
    history: WindowFeature | None = None  # the limited history that stands beside the full one
    store: str | None = None  # folder
    number: int = 0  # the row of the store that is shown token by token

    def scores(self) -> list[ScoresQuery]:
        """A question a model."""
        if self.text is None:
            return []
        return [ScoresQuery(side, spec, self.text) for side, spec in self.models]

    def extras(self) -> list[FeatureQuery]:
        """The questions beyond the scores, each once."""
        wanted = [features_needed(each.name, each.parameters, self.max_length, self.how) for each in self.strategies]
        every = dict.fromkeys(extra for extra in (*wanted, self.history) if extra is not None)
        return [FeatureQuery(asked, extra) for asked in self.scores() for extra in every]

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

    def sides(
        self, scored: Sequence[ScoredText], gathered: Mapping[FeatureQuery, FeatureValues]
    ) -> list[TokenizedText]:
        """The sides, from what was answered: scores of every model, and of the extras those that are there.

        Raises:
            MicroStepError: see `TokenizedText.of`.
        """
        text = "" if self.text is None else self.text.document.text
        return [
            TokenizedText.of(
                asked.side,
                text,
                scores,
                self.how,
                {each.extra: found for each, found in gathered.items() if each.scores == asked},
            )
            for asked, scores in zip(self.scores(), scored, strict=True)
        ]

    def run(self, load: ModelLoader, progress: Progress | None = None) -> list[TokenizedText]:
        """Ask all questions, one after another."""
        scores, extras = self.scores(), self.extras()
        count = len(scores) + len(extras)

        def part(i: int) -> Progress | None:
            return None if progress is None else lambda share: progress((i + share) / count)

        scored = [asked.run(load, part(i)) for i, asked in enumerate(scores)]
        gathered = {asked: asked.run(load, part(i)) for i, asked in enumerate(extras, len(scores))}
        return self.sides(scored, gathered)
