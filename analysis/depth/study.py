"""Does a model decide early exactly where it is sure? Depth over many documents, under two models.

Intervals are over documents (analysis/intervals.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from analysis.depth.request import DepthRequest, read_depth
from analysis.depth.result import Depth
from analysis.depth.statistics import (
    CountedTokens,
    change_decided,
    change_of_correlation,
    decided_in_bins,
    mean_decided,
    pooled,
    rank_correlation,
)
from analysis.depth.tables import layers_of_tokens
from analysis.intervals import Estimate
from analysis.query import ModelLoader, Session
from analysis.score_registry import SCORES, Unit, significant
from analysis.uncertainty.summary import signed
from model.errors import TextError
from model.hub.loading import ModelSpec
from model.progress import Progress, part
from model.short_repr import ShortRepr
from model.text.document import Document, TextInput

BINS = 10
CHANGE = "B − A"
CORRELATED = ("entropy", "confidence", "surprisal")  # of the final prediction


@dataclass(frozen=True, repr=False)
class DepthStudy(ShortRepr):
    """What was counted of all documents, by model."""

    names: tuple[str, str]
    sides: tuple[CountedTokens, CountedTokens]
    documents: int
    same_tokenizer: bool
    notes: tuple[str, ...]

    @property
    def same_layers(self) -> bool:
        return self.sides[0].layers.count == self.sides[1].layers.count


def study_depth(
    models: tuple[tuple[str, ModelSpec], ...],
    documents: Sequence[Document],
    chat: bool,
    load: ModelLoader,
    progress: Progress | None = None,
) -> DepthStudy:
    """Read the layers of two models over all documents.

    Raises:
        TextError: no document has a token that both models score.
        MicroStepError: a model's layers cannot be read.
    """
    once, found, notes = cache(load), list[Depth](), dict[str, None]()
    for i, document in enumerate(documents):
        own = part(progress, i / len(documents), (i + 1) / len(documents))
        depth = read_depth(DepthRequest(models, TextInput(document, chat)), Session(once, own, 2))
        assert depth is not None and depth.cells is not None  # a session answers everything
        if len(depth.cells):
            found.append(depth)
            for side in depth.sides:
                notes |= dict.fromkeys(f"{side.scored.facts.name}: {note}" for note in side.scored.notes)
    if not found:
        raise TextError("no token of these documents is scored under both models; give longer ones")
    a, b = pooled(found)
    first, second = (side.scored.facts.name for side in found[0].sides)
    return DepthStudy((first, second), (a, b), len(found), found[0].same_tokenizer, tuple(notes))


def by_layer(study: DepthStudy, unit: Unit) -> pd.DataFrame:
    """A row for each model and layer, as `micro-step depth` gives it for one text."""
    return layers_of_tokens(study.sides, unit, study.same_tokenizer)


def summary(study: DepthStudy) -> pd.DataFrame:
    """A row for A, for B and for B minus A: the mean layer of decision, and its rank correlation with final scores."""
    a, b = study.sides
    rows = [
        {"model": key, "name": name, **_numbers(side), "tokens": side.count, "documents": study.documents}
        for key, name, side in zip("AB", study.names, study.sides, strict=True)
    ]
    gaps = change_decided(a, b).columns("decided")
    for score in CORRELATED:
        gaps |= change_of_correlation(a, b, score).columns(f"correlation_{score}")
    return pd.DataFrame([*rows, {"model": CHANGE, "name": "", **gaps, "documents": study.documents}])


def _numbers(side: CountedTokens) -> dict[str, float]:
    found: dict[str, float] = {"layers": side.layers.count, **mean_decided(side).columns("decided")}
    for score in CORRELATED:
        found |= rank_correlation(side, score).columns(f"correlation_{score}")
    return found


def in_bins(study: DepthStudy, score: str, unit: Unit) -> pd.DataFrame:
    """A row for each model and tenth of its tokens by a final score: the mean layer of decision, and its spread.

    By the layers `decided_tenth`, `decided_half` and `decided_nine_tenths`, these shares of a bin are decided.
    """
    tables = []
    for key, side in zip("AB", study.sides, strict=True):
        bins = max(1, min(BINS, side.count // 30))
        middle, means, which = decided_in_bins(side, score, unit, bins)
        spread = np.array([np.quantile(side.decided[which == i], (0.1, 0.5, 0.9)) for i in range(bins)])
        columns = {"model": key, "bin": np.arange(bins), score: middle, "decided": means.mean}
        columns |= {"decided_low": means.low, "decided_high": means.high}
        columns |= dict(zip(("decided_tenth", "decided_half", "decided_nine_tenths"), spread.T, strict=True))
        tables.append(pd.DataFrame(columns).assign(unit=SCORES[score].unit(unit)))
    return pd.concat(tables, ignore_index=True)


def findings(study: DepthStudy) -> list[str]:
    """What was found, a sentence each."""
    a, b = study.sides
    lines = []
    for name, side in zip(study.names, study.sides, strict=True):
        tied = rank_correlation(side, "entropy").spoken(signed)
        lines.append(
            f"{name} decides a token after {mean_decided(side).spoken()} of {side.layers.count} layers on average; rank"
            f" correlation of this layer with the final entropy {tied}, over {side.count:,} tokens of"
            f" {study.documents:,} documents."
        )
    what = "layers" if study.same_layers else "of the depth"
    lines.append(
        f"B − A: {change_decided(a, b).spoken(signed)} {what}; correlation"
        f" {change_of_correlation(a, b, 'entropy').spoken(signed)}."
    )
    return lines


def study_text(study: DepthStudy, command: str, unit: Unit) -> str:
    """The study as Markdown: the command, the findings, and short tables."""
    layers, totals = by_layer(study, unit), summary(study)
    lines = [f"# Depth: {study.names[0]} and {study.names[1]}", "", "```", command, "```", ""]
    lines += [f"- {line}" for line in findings(study)]
    lines += [f"- {note}" for note in study.notes]
    head = ["mean layer of decision", *(f"rank correlation with final {name}" for name in CORRELATED)]
    lines += ["", f"| model | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for _, row in totals.iterrows():
        names = ["decided", *(f"correlation_{score}" for score in CORRELATED)]
        found = [Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in names]
        own = signed if row["model"] == CHANGE else significant
        cells = [found[0].spoken(own), *(each.spoken(signed) for each in found[1:])]
        lines.append(f"| {row['model']} {row['name']} | {' | '.join(cells)} |")
    columns = [
        "layer",
        "entropy",
        "confidence",
        "kl",
        "js",
        "final_rank",
        "decided_so_far",
        "repeats",
        "worse_than_uniform",
    ]
    for key, name in zip("AB", study.names, strict=True):
        lines += ["", f"## {key} {name}, layer by layer ({unit})", ""]
        lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for _, row in layers[layers["model"] == key].iterrows():
            values = [f"{row['layer']:.0f}", *(significant(float(row[column])) for column in columns[1:])]
            lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines) + "\n"
