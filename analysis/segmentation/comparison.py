"""Strategies side by side on a text or a store: what is drawn, how it is looked at, and the tables of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.intervals import Estimate
from analysis.query import ModelLoader, Session
from analysis.score_registry import Unit, significant, unit_of
from analysis.segmentation.corpus_view import StoreSides
from analysis.segmentation.metrics import BoundaryAgreement, Statistics, statistics
from analysis.segmentation.request import Answered, CutRequest
from analysis.segmentation.segmented_text import (
    REASONS,
    MemoCache,
    SegmentedText,
    TokenizedText,
    agree,
    cuts,
    mean_length,
    reasons,
)
from analysis.segmentation.strategy import scale
from analysis.segmentation.view import CutView
from model.errors import MicroStepError
from model.progress import Progress
from model.segmentation.segment import Rule
from model.short_repr import ShortRepr

WORDS = {  # why a token starts a segment
    "joins": "joins the segment",
    "cap": "the cap of {m} tokens",
    "first": "first token",
    "unscored": "has no score",
    "after unscored": "first with a score",
    "prompt": "prompt, which is not merged",
    "after prompt": "first after the prompt",
}


@dataclass(frozen=True, repr=False)
class StrategyComparison(ShortRepr):
    """Strategies side by side. Of a text, what is judged is what is shown; of a store, one document is shown."""

    request: CutRequest
    sides: tuple[TokenizedText, ...]  # that are shown
    shown: tuple[SegmentedText, ...]
    judged: tuple[SegmentedText, ...]
    others: tuple[TokenizedText, ...] = ()  # the sides that are shown, in the other precision
    kept: MemoCache = field(default_factory=MemoCache)

    def chosen(self, view: CutView) -> list[SegmentedText]:
        """The cuts of the chosen strategy.

        Raises:
            MicroStepError: there is no such strategy, or what it needs was not gathered.
        """
        found = [cut for cut in self.shown if cut.number == view.chosen]
        if not found:
            raise MicroStepError(f"there is no strategy {view.chosen}, counted from 0")
        return found

    @property
    def rows(self) -> list[tuple[str, tuple[SegmentedText, ...]]]:
        """The rows of a strip, with their names: a strategy under each model, or once where both segment alike."""
        found: list[tuple[str, tuple[SegmentedText, ...]]] = []
        for cut in self.shown:
            before = found[-1][1][-1] if found else None
            if before is not None and before.number == cut.number and alike(before, cut):
                label = cut.name.removeprefix(f"{cut.side.key} ")
                found[-1] = f"{before.side.key}, {cut.side.key} {label}", (before, cut)
            else:
                found.append((cut.name, (cut,)))
        return found

    def finding(self, number: int) -> str:
        """What a strategy does, under one model or two, and how the next strategy differs, in one sentence."""
        first = [cut for cut in self.judged if cut.number == number]
        if not first:
            return ""
        names = [cut.name.removeprefix(f"{cut.side.key} ") if len(self.sides) > 1 else cut.name for cut in self.judged]
        label = names[self.judged.index(first[0])]
        means = [significant(self.mean_length(cut).mean) for cut in first]
        if len(first) == 1:
            said = f"{label.capitalize()} makes segments of {means[0]} tokens on average"
        else:
            found, between = self.agreement(first[0], first[1])
            said = f"Under {label}, A makes segments of {means[0]} tokens and B of {means[1]}, "
            over = f" over {between}" if between != "tokens" else ""
            said += "at the same places" if found.f1 == 1 else f"which agree with F1 {significant(found.f1)}{over}"
        side = first[0].side
        other = next((cut for cut in self.judged if cut.side is side and cut.number != number), None)
        if other is not None:
            f1, under = self.agreement(first[0], other)[0].f1, f" under {side.key}" if len(first) == 2 else ""
            said += f"; {names[self.judged.index(other)]} agrees with {label}{under} with F1 {significant(f1)}"
        return f"{said}."

    def statistics(self, cut: SegmentedText) -> Statistics:
        """Lengths and agreement with words."""
        return self.kept.get(("statistics", cut), lambda: statistics(cut.found, cut.side.inputs))

    def mean_length(self, cut: SegmentedText) -> Estimate:
        """See `analysis.segmentation.segmented_text.mean_length`."""
        return self.kept.get(("mean", cut), lambda: mean_length(cut))

    def agreement(self, reference: SegmentedText, hypothesis: SegmentedText) -> tuple[BoundaryAgreement, str]:
        """See `analysis.segmentation.segmented_text.agree`."""
        return self.kept.get(("agree", reference, hypothesis), lambda: agree(reference, hypothesis))

    def reasons(self, cut: SegmentedText) -> NDArray[np.int8]:
        """See `analysis.segmentation.segmented_text.reasons`."""
        return self.kept.get(("reasons", cut), lambda: reasons(cut))

    def statistics_table(self) -> pd.DataFrame:
        """A row a cut that is judged."""
        return pd.DataFrame([self._statistics_row(cut) for cut in self.judged])

    def _statistics_row(self, cut: SegmentedText) -> dict[str, object]:
        found = self.statistics(cut)
        mean = self.mean_length(cut)
        capped = found.histogram[cut.found.max_length :].sum()
        row: dict[str, object] = {
            "segmentation": cut.name,
            "model": cut.side.facts.name,
            "strategy": str(cut.strategy),
            "tokens": found.tokens,
            "segments": found.segments,
            "mean_length": mean.mean,
            "mean_length_low": mean.low,
            "mean_length_high": mean.high,
            "singletons": found.singletons,
            "at_cap": capped / found.segments if found.segments else float("nan"),
        }
        words = found.words
        for name in ("precision", "recall", "f1"):
            row[f"word_{name}"] = float("nan") if words is None else getattr(words, name)
        return row

    def token_table(self, unit: Unit) -> pd.DataFrame:
        """A row a token and cut that is shown, with what the rule compared and why a segment starts."""
        tables = [self.tokens(cut, unit) for cut in self.shown]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def tokens(self, cut: SegmentedText, unit: Unit) -> pd.DataFrame:
        """A row a token of a cut: what the rule compared, in `unit`, as the strategy's parameters beside it are."""
        side, found = cut.side, cut.found
        why = why_words(cut, unit)
        return pd.DataFrame(
            {
                "segmentation": cut.name,
                "strategy": cut.strategy.title(unit),
                "position": np.arange(len(side)),
                "token": pd.Series(side.display, dtype="str"),
                "start": side.start,
                "end": side.end,
                "role": side.role.astype(object),
                "value": found.value.astype(np.float64) * scale(cut.strategy.rule.unit, unit),
                "unit": unit_of(cut.strategy.rule.unit, unit),
                "starts_segment": found.starts,
                "segment": found.segment,
                "why": [why[code] for code in self.reasons(cut).tolist()],
            }
        )


def alike(a: SegmentedText, b: SegmentedText) -> bool:
    """Whether two segmentations have the same tokens and segments in the text."""
    pairs = zip(*(_in_text(cut) for cut in (a, b)), strict=True)
    return all(np.array_equal(left, right) for left, right in pairs)


def _in_text(cut: SegmentedText) -> tuple[NDArray[np.generic], ...]:
    there = cut.side.start >= 0
    return tuple(each[there] for each in (cut.side.start, cut.side.end, cut.found.starts, cut.side.counted))


def why_words(cut: SegmentedText, unit: Unit) -> list[str]:
    """What to say for each of REASONS."""
    rule, bar = cut.strategy.rule, cut.strategy.bar
    compared = "starts a word"
    if bar is not None and rule.name != "word":
        shown = f"{significant(bar * scale(rule.unit, unit))} {value_unit(rule, unit)}".rstrip()
        compared = f"{rule.value} {'above' if rule.opens == 'above' else 'below'} {shown}"
    words = {**WORDS, "rule": compared, "cap": WORDS["cap"].format(m=cut.found.max_length)}
    return [words[reason] for reason in REASONS]


def value_unit(rule: Rule, unit: Unit) -> str:
    """The unit of what a rule compares; "" where its name says it."""
    shown = unit_of(rule.unit, unit)
    return "" if shown in ("probability", "half of 1 − cosine", "yes or no") else shown


def value_axis(rule: Rule, unit: Unit) -> str:
    """Label of an axis that shows what a rule compares."""
    shown = value_unit(rule, unit)
    return f"{rule.value}, {shown}" if shown else rule.value


def value_range(rule: Rule, unit: Unit, max_length: int) -> tuple[float, float]:
    """The fixed ends of a scale for what a rule compares, the same for all texts and models."""
    if rule.unit == "nats":
        top = {"surprisal": 16.0, "entropy_budget": 16.0}.get(rule.name, 8.0)  # bits
        top *= scale("nats", unit) / scale("nats", "bits")
        return (-top, top) if rule.name in ("entropy_rise", "entropy_spike") else (0.0, top)
    return (0.0, {"tokens": float(max_length + 1), "ratio": 2.0}.get(rule.unit, 1.0))


def compare_strategies(
    request: CutRequest, load: ModelLoader, progress: Progress | None = None, other: bool = False
) -> StrategyComparison:
    """Answer a request from its models or its store.

    Args:
        request: what is asked.
        load: gives the models.
        progress: told the share done.
        other: run the models in the other precision too.

    Raises:
        MicroStepError: as the runs, and as `segment`.
    """
    kept = MemoCache()
    if request.store is not None:
        return store_bench(request, StoreSides.read(Path(request.store)), kept)
    count = len(request.scores()) + len(request.extras())
    ask = Session(load, progress, 2 * count if other else count)
    first = request.answered(ask)
    assert first is not None  # a session answers everything
    return text_bench(request, first, first.other_precision(ask) if other else None, kept)


def text_bench(request: CutRequest, first: Answered, second: Answered | None, kept: MemoCache) -> StrategyComparison:
    """Segment what was answered, maybe for more strategies than the request has; an error as `TokenizedText.of`."""
    there = {asked: first.extras[asked] for asked in request.extras() if asked in first.extras}
    sides = replace(first, extras=there).sides(kept)
    found, others = cuts(sides, request.segmenters(), kept), second.sides(kept) if second is not None else ()
    return StrategyComparison(request, sides, found, found, others, kept)


def store_bench(request: CutRequest, store: StoreSides, kept: MemoCache) -> StrategyComparison:
    """All documents of a store, cut and judged, and one of them that is shown."""
    number = request.number
    shown = kept.get(("document", store, number), lambda: store.shown(number))
    segmenters = request.segmenters()
    shown_cuts, judged = (cuts((side,), segmenters, kept) for side in (shown, store.whole))
    return StrategyComparison(request, (shown,), shown_cuts, judged, kept=kept)
