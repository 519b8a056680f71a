"""Where a figure comes from: what was asked, of which models, and the command that makes it again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from analysis.segmentation.strategy import Segmenter
from model.hub.model_info import ModelInfo


@dataclass(frozen=True)
class Provenance:
    """Where a figure comes from: what its manifest says beside the figure, and the command that makes it again."""

    command: Callable[[str, str], str]  # (name of the figure, file to write): run in a folder that holds `files`
    request: Mapping[str, Any]  # what was asked, in plain values
    view: Mapping[str, Any]  # how it is looked at
    models: Mapping[str, ModelInfo]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what a reader must know, by model
    files: Mapping[str, bytes] = field(default_factory=dict)  # what the command reads
    read: Mapping[str, str] = field(default_factory=dict)  # the text that each model read, its chat template included


def plain_values(query: Any) -> dict[str, Any]:
    """A query as a manifest holds it: its fields as plain values, those of its text and its segmenter among them."""
    values = asdict(query)
    text = values.pop("text") or {"document": None, "chat": False, "force_bos": False}
    if "segmenter" in values:
        segmenter = values.pop("segmenter") or asdict(Segmenter())
        strategy = None if query.segmenter is None else str(query.segmenter.strategy)
        values |= {"strategy": strategy, "max_length": segmenter["max_length"], "how": segmenter["features"]}
    return {**text, **values}
