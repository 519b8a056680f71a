"""The options of a study of strategies, and its tables."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from data.corpus.features import FeatureSpec
from model.segmentation.features import Feature
from model.segmentation.segment import MAX_LENGTH, RULES

HISTORY_LIMIT = int(RULES["limited_history"].parameter("window").high)
TABLES = ("strategies", "pairs", "lengths", "curves", "transfer", "history")


@dataclass(frozen=True)
class StudyOptions:
    """What is computed, and on how much of each corpus."""

    limit_tokens: int = 100_000
    """Of each corpus."""
    window_characters: int = 2500
    """Longest window of a document, in characters, so that both models read the same texts."""
    every: int = 10
    """Features that need an extra model pass are computed for every n-th window."""
    window: int = 32
    """Window of the rule limited_history, in tokens; the stride is half of it."""
    layer: int = 2
    """Layer of the rule router."""
    history_windows: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)
    """Windows w of the study of limited history, in tokens; each stride is half of w."""
    history_every: int = 20
    """The study of limited history uses every n-th window of text."""
    targets: tuple[float, ...] = (2.0, 3.0)
    """Mean lengths, tokens."""
    max_length: int = MAX_LENGTH
    """M."""

    def gathers(self) -> list[FeatureSpec]:
        """The features computed besides the scores; the last has no limit, so it shows only rounding."""
        deepest = max(self.history_windows)
        whole = min(HISTORY_LIMIT, self.window_characters + deepest)  # no window of text has more tokens than this
        return [
            FeatureSpec(Feature("attention", width=self.max_length), self.every),
            FeatureSpec(Feature("hidden", layer=self.layer), self.every),
            FeatureSpec(Feature("window", self.window, "strided", max(1, self.window // 2)), self.every),
            *(
                FeatureSpec(Feature("window", w, "strided", max(1, w // 2)), self.history_every, deepest)
                for w in self.history_windows
            ),
            FeatureSpec(Feature("window", whole, "exact"), self.history_every, deepest),
        ]


@dataclass(frozen=True)
class Study:
    """The tables of a study; each row also names its corpus, and its model if it has one."""

    models: tuple[str, str]
    corpora: tuple[str, ...]
    tables: dict[str, pd.DataFrame]  # by the names in TABLES
    notes: dict[str, tuple[str, ...]]  # notes, by "corpus, model"
    options: StudyOptions
