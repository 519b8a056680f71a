"""What a study of the strategies computes, and the tables that it gives."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from data.corpus.features import FeatureSpec
from model.segmentation.segment import MAX_LENGTH, RULES

HISTORY_LIMIT = int(RULES["limited_history"].parameter("window").high)
TABLES = ("strategies", "pairs", "lengths", "curves", "transfer", "history")


@dataclass(frozen=True)
class StudyOptions:
    """What is computed, on how much of each corpus."""

    limit_tokens: int = 100_000
    """Of each corpus."""
    window_characters: int = 2500
    """Documents are cut into windows of at most so many: the same texts under both models."""
    every: int = 10
    """What needs a further run is computed for every so manieth window."""
    window: int = 32
    """Of the rule limited_history, tokens; strided by half of it."""
    layer: int = 2
    """Of the rule router."""
    history_windows: tuple[int, ...] = (4, 8, 16, 32, 64, 128, 256)
    """w of the study of limited history, tokens; each strided by half of it."""
    history_every: int = 20
    """Of the study of limited history: every so manieth window of text."""
    targets: tuple[float, ...] = (2.0, 3.0)
    """Mean lengths, tokens."""
    max_length: int = MAX_LENGTH
    """M."""

    def gathers(self) -> list[FeatureSpec]:
        """What is computed beyond the scores; the last is without any limit, so that it shows rounding alone."""
        deepest = max(self.history_windows)
        whole = min(HISTORY_LIMIT, self.window_characters + deepest)  # no window of text has more tokens
        return [
            FeatureSpec("attention", self.every, width=self.max_length),
            FeatureSpec("hidden", self.every, layer=self.layer),
            FeatureSpec("window", self.every, self.window, "strided", max(1, self.window // 2)),
            *(
                FeatureSpec("window", self.history_every, w, "strided", max(1, w // 2), begin=deepest)
                for w in self.history_windows
            ),
            FeatureSpec("window", self.history_every, whole, "exact", begin=deepest),
        ]


@dataclass(frozen=True)
class Study:
    """The tables of a study: a row also names its corpus, and its model where it is of one."""

    models: tuple[str, str]
    corpora: tuple[str, ...]
    tables: dict[str, pd.DataFrame]  # by TABLES
    notes: dict[str, tuple[str, ...]]  # what must be said, by "corpus, model"
    options: StudyOptions
