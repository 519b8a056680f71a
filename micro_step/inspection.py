"""`attention` and `attribute`: where a model looks, and which tokens a number that it gives depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.attention.figures import FIGURES as ATTENTION_FIGURES
from analysis.attention.figures import draw as draw_attention
from analysis.attention.layer import LayerAttention
from analysis.attention.maps import MapWindow, window
from analysis.attention.overview import Overview
from analysis.attention.pooling import Pool
from analysis.attention.positions import AttentionPositions, check_heads, check_layers
from analysis.attention.provenance import origin as attention_origin
from analysis.attention.request import LayerQuery, OverviewQuery, PositionsQuery, RolloutQuery
from analysis.attention.result import NEEDS, AttentionRequest, AttentionResult, AttentionSide, AttentionView, rows_at
from analysis.attention.rollout import Rollout
from analysis.attribution.figures import FIGURES as ATTRIBUTION_FIGURES
from analysis.attribution.figures import draw as draw_attribution
from analysis.attribution.grouping import AttributionUnit
from analysis.attribution.methods import METHODS, Features
from analysis.attribution.provenance import origin as attribution_origin
from analysis.attribution.request import AttributionRequest, SegmentsQuery, default_target
from analysis.attribution.summary import finding
from analysis.attribution.tables import unit_table
from analysis.attribution.targets import QUANTITIES, Baseline
from analysis.attribution.view import AttributionView, ShownAttribution
from analysis.figures.figure import Figure
from analysis.score_registry import Unit
from analysis.segmentation.strategy import Segmenter, Strategy
from analysis.uncertainty.scoring import score_document
from micro_step.inputs import ModelLike, Models, TextLike, as_strategy, as_text_input
from micro_step.result import Result
from model.errors import MicroStepError
from model.hub.loading import ModelSpec
from model.segmentation.features import FeatureOptions
from model.segmentation.segment import MAX_LENGTH


class AttentionMaps:
    """Attention of one model or two on a text: runs a model for what is asked of it, and keeps the answers."""

    def __init__(self, request: AttentionRequest, models: Models) -> None:
        self.request, self.models = request, models
        self.asked = request.readings()
        self.readings: list[AttentionPositions] = [each.run(models.load) for each in self.asked]
        self._overviews: dict[PositionsQuery, Overview] = {}
        self._layers: dict[LayerQuery | RolloutQuery, LayerAttention | Rollout] = {}

    def __repr__(self) -> str:
        names = ", ".join(each.facts.name for each in self.readings)
        return f"AttentionMaps({names}, {len(self.readings[0]):,} {self.readings[0].unit}s)"

    def weights(self, layer: int, head: int | None = None, *, number: int = 0) -> NDArray[np.float32]:
        """[queries, keys] the weights of a layer in full, as transformers' eager attention gives them.

        Args:
            layer: from 0.
            head: from 0. None: the mean of all heads.
            number: of the model, where there are two: 0 is A, 1 is B.

        Raises:
            MicroStepError: there is no such layer, head or model.
        """
        if number not in range(len(self.asked)):
            raise MicroStepError(f"there is no model {number}: there are {len(self.asked)}, counted from 0")
        view = AttentionView(layer=layer, head=head or 0, source="mean" if head is None else "head")
        rows = rows_at(self.layer(number, view), view)
        return np.nan_to_num(window(rows, MapWindow.of(rows.size, None, None)))

    def overview(self, number: int) -> Overview:
        """All layers and heads of one of the models."""
        asked = self.asked[number]
        if asked not in self._overviews:
            question = OverviewQuery(asked, self.request.pool)
            self._overviews[asked] = question.run(self.models.load, reading=self.readings[number])
        return self._overviews[asked]

    def layer(self, number: int, view: AttentionView) -> LayerAttention | Rollout:
        """One layer of one of the models, or the rollout through it."""
        asked = self.asked[number]
        model = self.models.load(asked.spec).model
        check_layers(model, [view.layer])
        check_heads(model, [view.head])
        question = RolloutQuery(asked, view.layer) if view.source == "rollout" else LayerQuery(asked, view.layer)
        if question not in self._layers:
            self._layers[question] = question.run(self.models.load, reading=self.readings[number])
        return self._layers[question]

    def looked(self, view: AttentionView, figure: str | None = None) -> AttentionResult:
        """What one figure shows; without a figure nothing but the texts."""
        of_all, of_one = NEEDS[figure] if figure is not None else (False, False)
        sides = [
            AttentionSide(
                asked.side,
                reading,
                self.overview(i) if of_all else None,
                rows_at(self.layer(i, view), view) if of_one else None,
            )
            for i, (asked, reading) in enumerate(zip(self.asked, self.readings, strict=True))
        ]
        return AttentionResult(self.request, tuple(sides), view)

    def table(self) -> pd.DataFrame:
        """A row a layer and head; of two models, of each."""
        tables = [self.overview(i).table() for i in range(len(self.asked))]
        if len(tables) == 1:
            return tables[0]
        named = [table.assign(model=asked.side) for table, asked in zip(tables, self.asked, strict=True)]
        return pd.concat(named, ignore_index=True)


def attention(
    model: ModelLike,
    text: TextLike,
    *,
    b: ModelLike | None = None,
    strategy: str | Strategy = "word",
    max_length: int = MAX_LENGTH,
    prompt_apart: bool | None = None,
    pool: Pool = "max",
    chat: bool = False,
    force_bos: bool = False,
) -> Result[AttentionMaps]:
    """Look at the attention of all layers and heads.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        b: a second model; figures then show B minus A.
        strategy: the segments that maps are read by, and that a micro_step model merges.
        max_length: M, the most tokens that a segment has.
        prompt_apart: each token that the assistant did not write is a segment. None: in a chat that holds an answer.
        pool: max or mean: what a cell of several weights holds.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.

    Returns:
        A row a layer and head in `table`, with statistics that are means over queries. Figures take layer, head,
        source, level, queries and keys; another layer may run the model again. `raw.weights(layer, head)` is a map in
        full.

    Raises:
        MicroStepError: the model or the text cannot be read, or the two models do not read the same tokens.
    """
    models = Models()
    named: list[tuple[str, ModelSpec]] = [("A", models.spec(model))]
    if b is not None:
        named.append(("B", models.spec(b)))
    chosen = as_strategy(strategy)
    features = FeatureOptions(prompt_apart=prompt_apart)
    read = as_text_input(text, chat, force_bos)
    request = AttentionRequest(tuple(named), read, Segmenter(chosen, max_length, features), pool)
    found = AttentionMaps(request, models)
    first = found.readings[0]
    names = " and ".join(reading.facts.name for reading in found.readings)

    def draw(name: str, view: AttentionView) -> Figure:
        return draw_attention(name, found.looked(view, name))

    return Result(
        "attention",
        found,
        tuple(ATTENTION_FIGURES),
        AttentionView(),
        found.table,
        lambda: f"{names} on {len(first):,} {first.unit}s; segments: {first.strategy}",
        draw,
        lambda _, view: attention_origin(found.looked(view)),
        tuple(note for reading in found.readings for note in reading.notes),
    )


def attribute(
    model: ModelLike,
    text: TextLike,
    *,
    b: ModelLike | None = None,
    quantity: str = "entropy",
    at: int | None = None,
    method: str = "integrated_gradients",
    baseline: Baseline = "mean",
    features: Features | None = None,
    group_by: AttributionUnit | None = None,
    strategy: str | Strategy | None = None,
    max_length: int = MAX_LENGTH,
    prompt_apart: bool | None = None,
    chat: bool = False,
    force_bos: bool = False,
    unit: Unit = "nats",
) -> Result[ShownAttribution]:
    """Attribute a number that a model gives at one token to the tokens before it.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        b: a second model, for kl and nothing else.
        quantity: entropy, surprisal, kl, micro_confidence or stop.
        at: the token, from 0. None: the one of greatest entropy among the first that can be.
        method: integrated_gradients, input_x_gradient, feature_ablation or shapley_sampling.
        baseline: mean, zero or eos: the embedding that replaces a removed token.
        features: tokens or words: what ablation and Shapley sampling move. None: the method's own.
        group_by: tokens, words, segments or lines: what values are summed over. None: words where these were moved,
            else tokens.
        strategy: of segments, where these are asked for; word if not given.
        max_length: M, the most tokens that a segment has.
        prompt_apart: each token that the assistant did not write is a segment. None: in a chat that holds an answer.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        unit: bits or nats, of entropy, surprisal and kl.

    Returns:
        A row a token, word, segment or line in `table`.

    Raises:
        MicroStepError: the model or the text cannot be read, the quantity is not defined at the token, or options do
            not go together.
    """
    if (b is not None) != (quantity == "kl"):
        raise MicroStepError("a model b goes with quantity='kl', which needs it")
    models = Models()
    named: Sequence[tuple[str, ModelSpec]] = [("A", models.spec(model))]
    if b is not None:
        named = [*named, ("B", models.spec(b))]
    chosen = as_strategy("word" if strategy is None else strategy)
    how, read = FeatureOptions(prompt_apart=prompt_apart), as_text_input(text, chat, force_bos)
    segmenter = Segmenter(chosen, max_length, how)
    asked = SegmentsQuery(*named[0], read, segmenter)
    of_segments = quantity in QUANTITIES and QUANTITIES[quantity].segmented
    request = AttributionRequest(
        tuple(named),
        read,
        at or 0,
        quantity,
        method,
        baseline,
        features,
        segmenter if of_segments else None,
    )
    group_by = group_by or features or METHODS[method].features or "tokens"
    if group_by == "tokens" and request.moved == "words":
        raise MicroStepError("words were moved, so there are no sums over tokens; group by words, segments or lines")
    wanted = of_segments or group_by == "segments"
    segments = asked.run(models.load) if wanted else None
    if at is None:
        first = score_document(models.load(named[0][1]), read)
        request = replace(request, at=default_target(first, quantity, segments))
    found = request.run(models.load, None, segments if of_segments else None)
    view = AttributionView(group_by, unit)
    shown = ShownAttribution(request, found, view, asked if wanted else None, segments)
    return Result(
        "attribute",
        shown,
        tuple(ATTRIBUTION_FIGURES),
        view,
        lambda: unit_table(shown.groups, found.encoded, shown.scale, shown.unit),
        lambda: f"{shown.what}: {finding(shown)}",
        lambda name, view: draw_attribution(name, replace(shown, view=view)),
        lambda _, view: attribution_origin(replace(shown, view=view)),
        found.notes,
    )
