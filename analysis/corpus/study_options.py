"""Options of the command `corpus study`: what is computed, and on how much of each corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.options import MaxLength, TargetLengths
from model.command_options import ListOf
from model.segmentation.features import Feature
from model.segmentation.segment import MAX_LENGTH, RULES

if TYPE_CHECKING:  # it brings torch
    from data.corpus.features import FeatureSpec

HISTORY_LIMIT = int(RULES["limited_history"].parameter("window").high)
WINDOW, LAYER = 32, 2  # of the rules limited_history and router; strides are half of a window


@dataclass(frozen=True)
class StudyOptions:
    """How much is computed."""

    limit_tokens: Annotated[int, typer.Option(min=1, help="Tokens that are read of each corpus.")] = 100_000
    window_characters: Annotated[
        int, typer.Option(min=1, help="Characters of a window of a document, the same for both models.")
    ] = 2500
    every: Annotated[int, typer.Option(min=1, help="Extra model passes are made for every n-th window.")] = 10
    history_window: Annotated[
        tuple[int, ...], typer.Option(help="w, tokens of the limited histories. Default: 4 to 256."), ListOf(int, 1)
    ] = (4, 8, 16, 32, 64, 128, 256)
    history_every: Annotated[int, typer.Option(min=1, help="Limited histories are studied in every n-th window.")] = 20
    target_length: TargetLengths = None
    max_length: MaxLength = MAX_LENGTH

    @property
    def targets(self) -> tuple[float, ...]:
        """Mean lengths at which strategies are judged, in tokens."""
        return self.target_length or (2.0, 3.0)

    def features(self) -> list[FeatureSpec]:
        """What is computed besides the scores; the last has no limit, so it shows only rounding."""
        from data.corpus.features import FeatureSpec

        windows = sorted(set(self.history_window))
        deepest = windows[-1]
        whole = min(HISTORY_LIMIT, self.window_characters + deepest)  # no window of text has more tokens than this
        return [
            FeatureSpec(Feature("attention", width=self.max_length), self.every),
            FeatureSpec(Feature("hidden", layer=LAYER), self.every),
            FeatureSpec(_strided(WINDOW), self.every),
            *(FeatureSpec(_strided(window), self.history_every, deepest) for window in windows),
            FeatureSpec(Feature("window", whole, "exact"), self.history_every, deepest),
        ]


def _strided(window: int) -> Feature:
    return Feature("window", window, "strided", max(1, window // 2))
