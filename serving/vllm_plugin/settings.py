"""What the plugin is told: by whoever starts vLLM, and by each request."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from model.decoding.row import SegmentSettings
from model.decoding.stopping import find_stop_rule
from model.errors import MicroStepError
from model.micro_step.configuration import MicroStepConfig

KEY = "micro_step"  # in vLLM's additional_config
PREFIX = "micro_step_"  # of a request's fields in SamplingParams.extra_args, `vllm_xargs` over HTTP
FIELDS = ("confidence", "rule", "max_segment_length")
ROW = "row"  # under which the drafter notes what it drafted for a request, for this project's own server


@dataclass(frozen=True)
class EngineSettings:
    """How drafts end unless a request says otherwise."""

    modules: Path  # folder with merger and micro decoder
    rule: str = "confidence"
    confidence: float = 0.8  # tau
    max_segment_length: int | None = None  # M; None: the model's own

    @classmethod
    def of(cls, additional_config: Mapping[str, Any] | None) -> EngineSettings:
        """Read vLLM's `additional_config`.

        Raises:
            MicroStepError: the folder is missing, or a field is unknown.
        """
        said = dict((additional_config or {}).get(KEY) or {})
        if not isinstance(folder := said.pop("modules", None), str):
            raise MicroStepError(
                "vLLM was not told which micro_step model it serves: give --additional-config"
                ' \'{"micro_step": {"modules": "FOLDER/micro_step"}}\''
            )
        if unknown := sorted(set(said) - set(FIELDS)):
            raise MicroStepError(f"unknown field {unknown[0]!r} of micro_step; it has modules, {', '.join(FIELDS)}")
        return replace(cls(Path(folder)), **said)

    @property
    def as_config(self) -> dict[str, Any]:
        """The inverse of `of`."""
        return {KEY: {**vars(self), "modules": str(self.modules)}}

    def asked(self, extra_args: Mapping[str, Any] | None) -> EngineSettings:
        """Return the settings of a request.

        Raises:
            MicroStepError: a field is unknown.
        """
        own = {name.removeprefix(PREFIX): v for name, v in (extra_args or {}).items() if name.startswith(PREFIX)}
        own.pop(ROW, None)
        if unknown := sorted(set(own) - set(FIELDS)):
            known = ", ".join(PREFIX + name for name in FIELDS)
            raise MicroStepError(f"unknown field {PREFIX + unknown[0]!r}; a request may set {known}")
        return replace(self, **own)

    def segments(self, config: MicroStepConfig) -> SegmentSettings:
        """Return how a row's segments end.

        Raises:
            MicroStepError: a value is none, or does not fit the model.
        """
        rule = find_stop_rule(str(self.rule), bool(config.stop_head))
        most = config.max_segment_length if self.max_segment_length is None else self.max_segment_length
        if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= config.max_segment_length:
            raise MicroStepError(f"segments may have 1 to {config.max_segment_length} tokens, got {most!r}")
        tau = self.confidence
        if isinstance(tau, bool) or not isinstance(tau, int | float) or not math.isfinite(tau) or tau < 0:
            raise MicroStepError(f"confidence must be a number from 0 on, got {tau!r}")
        return SegmentSettings(rule, float(tau), most)
