"""One model, one text, one rule: gather what the rule looks at, cut, and show it as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from analysis.score_registry import PER_NAT, Unit, unit_of
from analysis.segmentation.strategy import Segmenter
from analysis.uncertainty.result import ScoredText
from analysis.uncertainty.scoring import score_document
from analysis.uncertainty.tables import token_table
from model.errors import MicroStepError
from model.hub.loading import LoadedModel
from model.progress import Progress, part
from model.segmentation.features import Feature, FeatureOptions
from model.segmentation.rules import NO_MICRO_STEP
from model.segmentation.segment import RULES, Segmentation, SegmentInputs
from model.segmentation.solver import Solved
from model.short_repr import ShortRepr
from model.text.document import TextInput
from model.text.encoding import EncodedText

PROMPT_APART = "the prompt is not merged: each of its tokens is a segment"


@dataclass(frozen=True, repr=False)
class Segmentable(ShortRepr):
    """A scored text with all that one rule needs."""

    scored: ScoredText  # of N tokens
    inputs: SegmentInputs  # of the same N
    notes: tuple[str, ...]  # what a reader must know of both

    def __post_init__(self) -> None:
        if len(self.scored.encoded) != len(self.inputs):
            raise ValueError(f"{len(self.scored.encoded)} tokens but inputs of {len(self.inputs)}")


@dataclass(frozen=True)
class FeatureValues:
    """What a feature is on one text of N tokens."""

    tokens: int  # N
    values: Mapping[str, Any]  # fields of SegmentInputs
    note: str  # what a reader must know; "" if nothing


def feature_values(
    loaded: LoadedModel, encoded: EncodedText, feature: Feature, progress: Progress | None = None
) -> FeatureValues:
    """Compute a feature of a text.

    Raises:
        MicroStepError: it needs a trained micro_step model, which this is not; or as `Feature.compute`.
    """
    if feature.need == "micro_step" and not loaded.facts.trained_micro_step:
        raise MicroStepError(NO_MICRO_STEP)
    values, note = feature.compute(loaded, encoded.ids, encoded.prefix, progress)
    return FeatureValues(len(encoded), values, note)


def gather(loaded: LoadedModel, text: TextInput, segmenter: Segmenter, progress: Progress | None = None) -> Segmentable:
    """Score a text and compute what a rule needs.

    Args:
        loaded: the model.
        text: what to read.
        segmenter: the rule; of its parameters only `window` and `layer` matter here.
        progress: told the share done; may raise to stop.

    Raises:
        MicroStepError: as `score_document` and `feature_values`.
    """
    feature = segmenter.feature
    scored = score_document(loaded, text, progress=part(progress, 0, 0.5 if feature else 1))
    inputs, notes = scored_inputs(scored, segmenter.features)
    if feature is not None:
        found = feature_values(loaded, scored.encoded, feature, part(progress, 0.5, 1))
        inputs = replace(inputs, **found.values)
        notes = (*notes, found.note) if found.note else notes
    return Segmentable(scored, inputs, notes)


def scored_inputs(scored: ScoredText, how: FeatureOptions) -> tuple[SegmentInputs, tuple[str, ...]]:
    """What the rules look at in a scored text, and what a reader must know of both."""
    apart = prompt_apart(scored.encoded, how)
    notes = (*scored.notes, PROMPT_APART) if apart else scored.notes
    return SegmentInputs.of(scored.scores, scored.encoded, apart), notes


def prompt_apart(encoded: EncodedText, how: FeatureOptions) -> bool:
    """Whether each token of the prompt is a segment: as it was asked for, else in a chat that has an answer."""
    if how.prompt_apart is not None:
        return how.prompt_apart
    return encoded.chat and bool((encoded.role == "assistant").any())


def segment_table(scored: ScoredText, found: Segmentation, unit: Unit = "nats") -> pd.DataFrame:
    """The table of scores with what the rule compared, where segments start, and the segment of each token.

    `value` is in `value_unit`: `unit` where it is an entropy or surprisal; parameters are in nats whatever the unit.
    """
    table = token_table(scored, unit)
    scale = PER_NAT[unit] if RULES[found.rule].unit == "nats" else 1.0
    table["value_unit"] = unit_of(RULES[found.rule].unit, unit)
    table["value"] = found.value.astype(np.float64) * scale
    table["starts_segment"] = found.starts
    table["segment"] = found.segment
    return table


def curve_table(solved: Solved, unit: Unit = "nats") -> pd.DataFrame:
    """A row a point of the curve and the solution among them: parameter, value, mean_length, solution, value's unit."""
    of_parameter = RULES[solved.rule].parameter(solved.parameter).unit
    scale = PER_NAT[unit] if of_parameter == "nats" else 1
    values = np.append(solved.curve_parameter, solved.value) * scale
    lengths = np.append(solved.curve_length, solved.mean_length)
    solution = np.arange(len(values)) == len(values) - 1
    order = np.lexsort((~solution, values))
    table = pd.DataFrame(
        {
            "rule": solved.rule,
            "parameter": solved.parameter,
            "value": values[order],
            "mean_length": lengths[order],
            "solution": solution[order],
            "unit": unit_of(of_parameter, unit),
        }
    )
    return table.drop_duplicates("value", ignore_index=True)


def finding(solved: Solved) -> str:
    """The solution in words, with the parameter in full."""
    return " ".join(
        [
            f"{solved.rule} {solved.parameter}={solved.value} gives {solved.segments:,} segments of"
            f" {solved.mean_length:.4f} tokens on average, of at most {solved.max_length} tokens each.",
            *unreached(solved),
        ]
    )


def unreached(solved: Solved) -> list[str]:
    """Why the target was not reached, and what comes nearest to it; nothing if it was."""
    if solved.obstacle == "none":
        return []
    unit = "token" if solved.target_length == 1 else "tokens"
    target, wanted = f"A mean length of {solved.target_length:g} {unit}", solved.tokens / solved.target_length
    if solved.obstacle == "range":
        edge = "longest" if solved.mean_length < solved.target_length else "shortest"
        said = [f"{target} cannot be reached: the {edge} is {_said(solved, solved.mean_length)}."]
        if edge == "shortest" or solved.segments > solved.fewest:
            values = "No value" if solved.exact else "None of the values tried"
            return [*said, f"{values} of {solved.parameter} gives {'more' if edge == 'longest' else 'less'}."]
        forced = f", of which {solved.forced:,} start one under every strategy," if solved.forced > 1 else ""
        limit = f"make at least {solved.fewest:,} segments of at most {solved.max_length} tokens"
        return [*said, f"{solved.tokens:,} tokens{forced} {limit}."]
    assert solved.beyond is not None
    why = {
        "whole segments": f"it would need {wanted:.1f} segments",
        "whole parameter": f"{solved.parameter} is a whole number",
        "ties": "several tokens have the same value, and change together",
        "linked": f"one step of {solved.parameter} moves several boundaries",
    }[solved.obstacle]
    near = "The nearest values" if solved.exact else "The nearest values tried"
    return [
        f"{target} cannot be reached: {why}.",
        f"{near} give {_said(solved, solved.mean_length)} and {_said(solved, solved.beyond)}.",
    ]


def _said(solved: Solved, length: float) -> str:
    return f"{length:.4g} tokens ({round(solved.tokens / length):,} segments)"
