"""A loaded model that answers requests of the API with this project's own decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from model.causal_lm.forward import check_readable, context_length
from model.decoding.generation_config import explicit_settings
from model.decoding.merged import new_rows, verifies
from model.decoding.pass_times import MeasuredTimes
from model.decoding.row import LiveRow
from model.hub.cache import times_folder
from model.hub.loading import LoadedModel
from model.hub.wrap_base import wrap
from serving.answer_text import StopStringCriterion
from serving.engine import Engine
from serving.model_service import MIN_TEMPERATURE, NO_CONTEXT, ModelService, ServedModel
from serving.options import LimitOptions, SegmentOptions
from serving.protocol import ApiRequest, SegmentRequest


class Service(ModelService):
    """One model, its engine, and how it answers unless a request says otherwise.

    Args:
        loaded: a micro_step model, or any base, which then writes alone.
        name: under which requests name it.
        segments: how segments end unless a request says otherwise.
        limits: what requests may ask for.
    """

    def __init__(self, loaded: LoadedModel, name: str, segments: SegmentOptions, limits: LimitOptions) -> None:
        wrapped = wrap(loaded)
        self.model = model = wrapped.model
        served = ServedModel(
            name,
            loaded.tokenizer,
            context_length(model) or NO_CONTEXT,
            wrapped.facts.untrained,
            model.config.max_segment_length,
            verifies(model, segments.lossless),
        )
        super().__init__(served, segments, limits)
        costs = MeasuredTimes(model, times_folder()) if segments.by_cost else None
        self.engine = Engine(model, limits.max_rows, limits.max_waiting, limits.read_at_once, costs)
        model.generate_segments(  # settings that do not fit the model are refused before the first request
            torch.tensor([[1, 1]], device=model.device),
            max_new_tokens=2,
            draft_costs=costs,
            **self._segments(SegmentRequest()),
        )

    def _row(self, request: ApiRequest, prompt: list[int], new_tokens: int, seed: int) -> LiveRow:
        check_readable(self.model, [np.array(prompt)], len(prompt))
        temperature = 1.0 if request.temperature is None else request.temperature
        sampled = temperature >= MIN_TEMPERATURE
        warped: dict[str, Any] = {"temperature": temperature, "top_p": request.top_p or 1.0} if sampled else {}
        generator = torch.Generator(self.model.device).manual_seed(seed) if sampled else None
        (row,), _ = new_rows(
            self.model,
            [prompt],
            generator=generator,
            topk=request.topk or 0,
            stopping_criteria=[StopStringCriterion(self.tokens, request.stops)] if request.stops else None,
            **self._segments(request.micro_step or SegmentRequest()),
            **explicit_settings(
                do_sample=sampled, max_new_tokens=new_tokens, max_time=float(self.limits.timeout), **warped
            ),
        )
        return row
