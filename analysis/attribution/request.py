"""Attribution as it is asked for: a quantity at a token of a text, to the tokens before it.

The segments of a text are a question of their own: sums over them, and the quantities of a micro_step model, need them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.faithfulness import ROWS, faithfulness
from analysis.attribution.grouping import unit_starts
from analysis.attribution.methods import (
    BACKWARD,
    METHODS,
    MOST_POSITIONS,
    AttributionProgress,
    attribute,
    expected_rows,
    most_rows,
    row_bytes,
)
from analysis.attribution.options import Baseline, Features
from analysis.attribution.quantities import BASELINES, QUANTITIES, eligible
from analysis.attribution.result import Attribution, UnitSegments
from analysis.query import ModelLoader, RunCost
from analysis.segmentation.boundaries import starts_cost, starts_of
from analysis.segmentation.strategy import Segmenter
from analysis.uncertainty.result import ScoredText
from analysis.uncertainty.scoring import encode_for, fit
from model.arguments import check_choice
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec
from model.progress import Progress
from model.scoring.caveats import remarks
from model.text.document import TextInput
from model.text.encoding import EncodedText

FIRST = 32  # tokens among which a target is chosen where none is given: what stands before is read many times


@dataclass(frozen=True)
class SegmentsQuery:
    """The question for the segments of one text under one model."""

    side: str
    spec: ModelSpec
    text: TextInput
    segmenter: Segmenter = field(default_factory=Segmenter)

    @property
    def specs(self) -> dict[str, ModelSpec]:
        return {self.side: self.spec}

    def cost(self, loaded: LoadedModel) -> RunCost:
        return starts_cost(loaded, self.text, self.segmenter)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> UnitSegments:
        loaded, micro = load(self.spec), load(self.spec).facts.micro_step
        segmenter = self.segmenter.capped(None if micro is None else micro.max_segment_length)
        encoded, _ = fit(loaded, encode_for(loaded, self.text))
        starts, notes = starts_of(loaded, encoded, self.text, segmenter, progress)
        starts = starts.copy()
        if micro is not None and not encoded.prefix:
            starts[:2] = True  # no macro step stands before the first token, so that its segment is that token alone
        return UnitSegments(starts, str(segmenter), notes)


@dataclass(frozen=True)
class AttributionRequest:
    """A quantity at a token, a method, and what stands for nothing."""

    models: tuple[tuple[str, ModelSpec], ...]  # ("A", spec); for KL also ("B", spec)
    text: TextInput
    at: int  # t, index of the target among the tokens
    quantity: str = "entropy"
    method: str = "integrated_gradients"
    baseline: Baseline = "mean"
    features: Features | None = None  # what ablation and Shapley move; None: the method's own default
    segmenter: Segmenter | None = None  # of quantities of a micro_step model, which read segments

    def __post_init__(self) -> None:
        check_choice("quantity", self.quantity, QUANTITIES)
        check_choice("method", self.method, METHODS)
        check_choice("baseline", self.baseline, BASELINES)
        check_choice("features", self.features or "tokens", ("tokens", "words"))
        pair, title = QUANTITIES[self.quantity].pair, QUANTITIES[self.quantity].title
        if len(self.models) != 1 + pair:
            raise MicroStepError(f"{title} needs {'two models, A and B' if pair else 'one model'}")
        if QUANTITIES[self.quantity].segmented != (self.segmenter is not None):
            raise MicroStepError(f"{title} {'reads no segments' if self.segmenter else 'needs a strategy'}")
        if self.features is not None and METHODS[self.method].features is None:
            raise MicroStepError(f"{METHODS[self.method].title} looks at every token: it takes no features")

    @property
    def moved(self) -> Features | None:
        """What the method moves; None where it looks at every embedding."""
        return self.features or METHODS[self.method].features

    @property
    def specs(self) -> dict[str, ModelSpec]:
        return dict(self.models)

    @property
    def segments(self) -> SegmentsQuery | None:
        """The question that comes first; None where the quantity needs no segments."""
        side, spec = self.models[0]
        if self.segmenter is None:
            return None
        return SegmentsQuery(side, spec, self.text, self.segmenter)

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes: the passes of the method and of the faithfulness check, over the tokens up to t."""
        encoded, _ = fit(loaded, encode_for(loaded, self.text))
        n = min(self.at, len(encoded)) + len(encoded.prefix)
        gradients = METHODS[self.method].gradients
        features = len(np.unique(self._features(encoded)[: self.at]))
        passes = most_rows(self.method, features) * (BACKWARD if gradients else 1.0) + ROWS
        work = passes * (loaded.facts.parameters * n + loaded.facts.layers * loaded.facts.hidden_size * float(n) ** 2)
        rows = max(1, MOST_POSITIONS // max(1, n))
        return RunCost(n, rows * row_bytes(loaded, n, gradients), work)

    def run(
        self, load: ModelLoader, progress: Progress | None = None, segments: UnitSegments | None = None
    ) -> Attribution:
        """The attribution.

        Args:
            load: gives the models.
            progress: told the share of rows done; may raise to stop.
            segments: the answer to `self.segments`, where there is one already.

        Raises:
            MicroStepError: two models that read different tokens; or as `problem`, `attribute` and `SegmentsQuery.run`.
        """
        from analysis.attribution.targets import problem  # needs torch

        models = [load(spec) for _, spec in self.models]
        asked = self.segments
        segments = None if asked is None else segments or asked.run(load)
        read = [fit(loaded, encode_for(loaded, self.text)) for loaded in models]
        encoded, cut = read[0]
        if len(read) == 2:
            _check_same(models, encoded, read[1][0])
            encoded, cut = min(read, key=lambda each: len(each[0]))
        starts = None if segments is None else segments.starts
        asking = problem(models, encoded, self.quantity, self.at, starts)
        n, lead = asking.inputs.shape[1], asking.lead
        feature = np.concatenate([np.full(lead, -1), self._features(encoded)])[:n]
        rows = expected_rows(self.method, len(np.unique(feature[asking.attributed])))
        meter = AttributionProgress(asking, rows + ROWS, progress)
        found = attribute(asking, self.method, self.baseline, feature, meter)
        curves = faithfulness(asking, found, self.baseline, meter)
        if progress is not None:
            progress(1.0)
        tokens = slice(lead, lead + self.at)
        notes = [*remarks(models[0], encoded, self.text.chat), *cut]
        if segments is not None:  # the model itself is read then, not its base alone
            notes = [note for note in notes if not note.startswith("a micro_step model")]
            notes += [f"read in the segments of {segments.strategy}", *segments.notes]
        if not found.converged:
            notes.append(
                f"integrated gradients did not converge in {found.steps} steps: the values do not sum to the"
                " difference; choose another baseline or method"
            )
        return Attribution(
            tuple(loaded.facts for loaded in models),
            encoded,
            self.at,
            found.values[tokens],
            None if found.batches is None else found.batches[:, tokens],
            feature[tokens],
            found,
            curves,
            tuple(notes),
        )

    def _features(self, encoded: EncodedText) -> NDArray[np.int64]:
        """[N] the feature of each token."""
        starts = unit_starts(encoded)["words" if self.moved == "words" else "tokens"]
        return np.cumsum(starts, dtype=np.int64) - 1


def default_target(scored: ScoredText, quantity: str, segments: UnitSegments | None = None) -> int:
    """The token of greatest entropy at which a quantity is defined, among the first `FIRST` ones that can be."""
    micro = scored.facts.micro_step
    starts = None if segments is None else segments.starts
    most = None if micro is None else micro.max_segment_length
    at = np.flatnonzero(eligible(scored.encoded, quantity, starts, most) & ~scored.scores.missing)[:FIRST]
    if not len(at):
        raise MicroStepError(
            f"the text has no token at which {QUANTITIES[quantity].title} is defined; take a longer one"
        )
    return int(at[np.argmax(scored.scores.entropy[at])])


def _check_same(models: Sequence[LoadedModel], a: EncodedText, b: EncodedText) -> None:
    """Raise MicroStepError unless two models read the same tokens."""
    if models[0].facts.tokenizer_hash != models[1].facts.tokenizer_hash:
        raise MicroStepError("KL needs two models with the same tokenizer, which split the text into the same tokens")
    n = min(len(a), len(b))
    if a.prefix != b.prefix or a.text != b.text or not np.array_equal(a.ids[:n], b.ids[:n]):
        raise MicroStepError(
            "KL needs the same tokens, and the models read different ones: leave the template out, or force BOS"
        )
