"""Which segments the micro attention is taken of: those of a strategy, of the model's own training, or of its answer.

The training's segmentation stands in the recipe beside a trained model. Where it names a mean length, the strategy's
threshold is solved for that length on what is read here. A model that was trained to draft was trained on every
position with the tokens after it: segments of M tokens stand for that.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from analysis.score_registry import significant
from data.run_folder import RECIPE, read_run
from data.yaml_config import read_yaml
from model.errors import MicroStepError
from model.hub.fetch import fetch, is_cached
from model.segmentation.segment import MAX_LENGTH, RULES, SegmentInputs, segment, valid_parameters
from model.segmentation.solver import POINTS, solve
from model.text.encoding import EncodedText

TARGET = 2.0  # mean tokens a segment, where no training says another


@dataclass(frozen=True)
class TrainingSegments:
    """How a model's training data was cut."""

    rule: str = "confidence"
    parameters: tuple[tuple[str, float], ...] = ()
    target_length: float | None = TARGET
    known: bool = False  # it stands in a recipe; otherwise it is what is taken where none does

    def cut(self, inputs: SegmentInputs, most: int) -> tuple[NDArray[np.bool_], str]:
        """[N] where segments start, and in words by which rule.

        Raises:
            MicroStepError: an unknown strategy or parameter, or there is nothing to solve on.
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
        origin = "as in training" if self.known else "no training says how"
        return found.starts, f"{self.rule}({settings}){solved}; {origin}"


class _Segmentation(BaseModel):
    """The part of a recipe that says where training segments start."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    rule: str = "entropy_relative"
    parameters: dict[str, float] = Field(default={})
    target_length: float | None = None
    max_length: int = MAX_LENGTH


class Training(BaseModel):
    """What a recipe says of a training run; what does not matter here is kept as it stands."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str
    objective: str = "micro_step"
    base: dict[str, Any]
    segmentation: _Segmentation = _Segmentation()
    stages: tuple[dict[str, Any], ...] = ()
    seed: int = 0

    @property
    def cut(self) -> TrainingSegments:
        """How its data was cut."""
        said = self.segmentation
        if self.objective == "draft":
            return TrainingSegments("fixed", (("k", float(said.max_length)),), None, known=True)
        return TrainingSegments(said.rule, tuple(said.parameters.items()), said.target_length, known=True)

    @property
    def variant(self) -> str:
        """Its name without the seed, which runs that differ in nothing else share."""
        return self.name.removesuffix(f"-{self.seed}")

    @property
    def but_for_its_seed(self) -> str:
        """All that the recipe says but its name and seed: the same for the seeds of one recipe alone."""
        said = self.model_dump(mode="json", exclude={"name", "seed"}, exclude_unset=True)
        return json.dumps(said, sort_keys=True)

    @property
    def stage_words(self) -> str:
        """The names of its stages."""
        return ", then ".join(str(each.get("name", "?")) for each in self.stages) or "not known"


def model_of(name: str) -> str:
    """The model that a name stands for: of the folder of a training run, the newest model in it.

    Raises:
        TextError: the run is damaged.
        MicroStepError: it has no model yet.
    """
    folder = Path(name)
    if not (folder / "run.json").is_file():
        return name
    found = read_run(folder).model
    if found is None:
        raise MicroStepError(f"the run {name} has no model yet")
    return str(found)


def training_of(name: str, revision: str | None = None) -> Training | None:
    """The recipe of a model on this machine; None where there is none.

    It stands in the model's folder, or in the folder of the run that the model is of.

    Raises:
        MicroStepError: there is one, and it is damaged.
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
    """The most tokens of a segment: what is asked for, else 4 or the model's M.

    Raises:
        MicroStepError: it is less than 2, or more than the model writes.
    """
    most = min(MAX_LENGTH, longest) if asked is None else asked
    if not 2 <= most <= longest:
        raise MicroStepError(
            f"segments must have at least 2 tokens for a micro step, and at most the model's {longest}; got {most}"
        )
    return most


def readable(
    encoded: EncodedText, starts: NDArray[np.bool_], limit: int | None
) -> tuple[EncodedText, NDArray[np.int64], NDArray[np.bool_]]:
    """A text as a row that the model reads: its tokens, and with BOS before them their ids and where segments start.

    What is scored may be a token longer than the model's context, since the last token's own state is not needed there.

    Args:
        encoded: N tokens.
        starts: [N] where a strategy starts segments.
        limit: positions of the model, if it states them.
    """
    lead = len(encoded.prefix)
    if limit is not None and len(encoded) + lead > limit:
        encoded, starts = encoded.head(limit - lead), starts[: limit - lead]
    ids = np.concatenate([np.asarray(encoded.prefix, dtype=np.int64), encoded.ids])
    return encoded, ids, readable_starts(starts, lead)


def readable_starts(starts: NDArray[np.bool_], lead: int) -> NDArray[np.bool_]:
    """[P + N], with P ids before the text: these and the first two of all start segments, as the model needs it."""
    found = np.concatenate([np.ones(lead, dtype=bool), starts])
    found[:2] = True
    return found
