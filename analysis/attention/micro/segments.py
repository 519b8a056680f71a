"""The segments of micro attention: those of a strategy, of the model's training, or of the model's answer.

The recipe of a trained model says how its training data was segmented. If it has a target length, the threshold is
solved for that length on this text. A model trained to draft saw every position with the tokens after it; segments of
M tokens stand for that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from analysis.score_registry import significant
from analysis.segmentation.strategy import Strategy
from data.run_folder import RECIPE, read_run
from data.segmentation_config import SegmentationConfig
from data.yaml_config import read_yaml
from model.errors import MicroStepError
from model.hub.fetch import fetch, is_cached
from model.segmentation.segment import MAX_LENGTH, RULES, SegmentInputs, segment, valid_parameters
from model.segmentation.solver import POINTS, solve
from model.text.encoding import EncodedText

TARGET = 2.0  # mean tokens per segment, if no recipe says otherwise


@dataclass(frozen=True)
class TrainingSegments:
    """How a model's training data was segmented."""

    rule: str = "confidence"
    parameters: tuple[tuple[str, float], ...] = ()
    target_length: float | None = TARGET
    known: bool = False  # it comes from a recipe; otherwise it is the default

    @property
    def strategy(self) -> Strategy:
        """The rule and its parameters, before anything is solved; an error as `Strategy.of`."""
        return Strategy.of(self.rule, dict(self.parameters))

    def cut(self, inputs: SegmentInputs, most: int) -> tuple[NDArray[np.bool_], str]:
        """[N] where segments start, and the rule in words.

        Raises:
            MicroStepError: the strategy or a parameter is unknown, or the threshold cannot be solved.
        """
        given = dict(self.parameters)
        if self.target_length is None:
            parameters, solved = valid_parameters(self.rule, given), ""
        else:
            name = RULES[self.rule].solves
            others = {key: value for key, value in given.items() if key != name}
            parameters = solve(self.rule, inputs, self.target_length, most, POINTS, **others).parameters
            solved = f", solved here for {self.target_length:g} tokens on average"
        found = segment(self.rule, inputs, most, **parameters)
        settings = ", ".join(f"{key} {significant(value)}" for key, value in parameters.items())
        origin = "as in training" if self.known else "no recipe says how"
        return found.starts, f"{self.rule}({settings}){solved}; {origin}"


class Training(BaseModel):
    """A training run according to its recipe; parts that do not matter here are kept unread."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str
    objective: str = "micro_step"
    base: dict[str, Any]
    segmentation: SegmentationConfig = SegmentationConfig()
    stages: tuple[dict[str, Any], ...] = ()
    seed: int = 0

    @property
    def cut(self) -> TrainingSegments:
        segmentation = self.segmentation
        if self.objective == "draft":
            return TrainingSegments("fixed", (("k", float(segmentation.max_length)),), None, known=True)
        return TrainingSegments(
            segmentation.rule, tuple(segmentation.parameters.items()), segmentation.target_length, known=True
        )

    @property
    def variant(self) -> str:
        """Its name without the seed, shared by runs that differ in the seed alone."""
        return self.name.removesuffix(f"-{self.seed}")

    @property
    def but_for_its_seed(self) -> str:
        """The recipe without name and seed, which is equal for all seeds of one recipe."""
        settings = self.model_dump(mode="json", exclude={"name", "seed"}, exclude_unset=True)
        return json.dumps(settings, sort_keys=True)

    @property
    def stage_words(self) -> str:
        return ", then ".join(str(each.get("name", "?")) for each in self.stages) or "not known"


def model_of(name: str) -> str:
    """The model for a name: for the folder of a training run, its newest model.

    Raises:
        TextError: the run is damaged.
    """
    folder = Path(name)
    if not (folder / "run.json").is_file():
        return name
    newest = read_run(folder).model
    if newest is None:
        raise MicroStepError(f"the run {name} has no model yet")
    return str(newest)


def training_of(name: str, revision: str | None = None) -> Training | None:
    """The recipe of a model on this machine; None if there is none.

    It is in the model's folder, or in the folder of its training run.

    Raises:
        MicroStepError: the recipe is damaged.
    """
    if not is_cached(name):
        return None
    folder = fetch(name, revision)
    if not folder.is_dir():
        return None
    places = [folder, folder.parent]
    if folder.parent.parent.name == "checkpoints":
        places.append(folder.parent.parent.parent)
    for place in places:
        if (place / RECIPE).is_file() and (place == folder or (place / "run.json").is_file()):
            return read_yaml(place / RECIPE, Training)
    return None


def check_most(asked: int | None, longest: int) -> int:
    """The longest segment, in tokens: as asked for, or 4, or the model's M if that is less."""
    most = min(MAX_LENGTH, longest) if asked is None else asked
    if not 2 <= most <= longest:
        raise MicroStepError(
            f"segments must have at least 2 tokens for a micro step, and at most the model's {longest}; got {most}"
        )
    return most


def readable(
    encoded: EncodedText, starts: NDArray[np.bool_], limit: int | None
) -> tuple[EncodedText, NDArray[np.int64], NDArray[np.bool_]]:
    """A text as a row for the model: its tokens, and including BOS their ids and where segments start.

    A scored text may be one token longer than the model's context, since scoring does not need the last token's state.

    Args:
        encoded: N tokens.
        starts: [N] where a strategy starts segments.
        limit: the model's context length, if known.
    """
    lead = len(encoded.prefix)
    if limit is not None and len(encoded) + lead > limit:
        encoded, starts = encoded.head(limit - lead), starts[: limit - lead]
    ids = np.concatenate([np.asarray(encoded.prefix, dtype=np.int64), encoded.ids])
    return encoded, ids, readable_starts(starts, lead)


def readable_starts(starts: NDArray[np.bool_], lead: int) -> NDArray[np.bool_]:
    """[P + N] starts including the P ids before the text, which start segments, as do the first two of all."""
    all_starts = np.concatenate([np.ones(lead, dtype=bool), starts])
    all_starts[:2] = True
    return all_starts
