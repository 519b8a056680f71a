"""Where training segments start: the part of a recipe that the trainer and those who read its models share."""

from typing import Annotated

from pydantic import Field

from data.yaml_config import StrictModel
from model.segmentation.segment import MAX_LENGTH


class SegmentationConfig(StrictModel):
    """The strategy of the training segments, in nats."""

    rule: str = "entropy_relative"
    parameters: dict[str, float] = Field(default={})
    max_length: Annotated[int, Field(ge=1)] = MAX_LENGTH
    target_length: Annotated[float, Field(ge=1)] | None = None
    """Solve the rule's threshold for this mean length of the training responses."""
    under: str | None = None
    """Segment the same examples under this model, by its scores and over its tokens, and move its boundaries to the
    tokens that start at the same characters. max_length and target_length then count its tokens."""
