"""What the models answered for the segmentation page, and the bench that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from analysis.segmentation.comparison import StrategyComparison, text_bench
from analysis.segmentation.features import FeatureValues
from analysis.segmentation.request import CutRequest, FeatureQuery
from analysis.segmentation.segmented_text import MemoCache, TokenizedText
from analysis.uncertainty.result import ScoredText
from app.run_query import answers


@dataclass(frozen=True)
class Answered:
    """The answers to a request's questions: all scores, and of the extras those that are there."""

    request: CutRequest
    scores: tuple[ScoredText, ...]
    extras: Mapping[FeatureQuery, FeatureValues]

    def sides(self, kept: MemoCache) -> tuple[TokenizedText, ...]:
        """The sides: the same objects as long as the answers are the same."""
        answered = (*self.scores, *self.extras.values())
        key = ("sides", self.request.how, *map(id, answered))
        return kept.get(key, lambda: (answered, tuple(self.request.sides(self.scores, self.extras))))[1]


def ask(request: CutRequest) -> Answered | None:
    """Ask the models what was not answered before, in front of the reader; None while there are no scores."""
    scores = [found for found in answers(request.scores()) if found is not None]
    if len(scores) < len(request.models):
        return None
    questions = request.extras()
    extras = {asked: found for asked, found in zip(questions, answers(questions), strict=True) if found is not None}
    return Answered(request, tuple(scores), extras)


def ask_other_precision(first: Answered) -> Answered | None:
    """The same questions to the models in the other precision."""
    return ask(first.request.in_other_precision([scored.facts.dtype for scored in first.scores]))


def bench_of(request: CutRequest, first: Answered, second: Answered | None, kept: MemoCache) -> StrategyComparison:
    """Cut what was answered; an error as `TokenizedText.of`."""
    there = {asked: first.extras[asked] for asked in request.extras() if asked in first.extras}
    sides = replace(first, extras=there).sides(kept)
    return text_bench(request, sides, second.sides(kept) if second is not None else (), kept)
