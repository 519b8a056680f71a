"""A loaded model that answers requests of the API: it reads prompts, and turns settings into rows for the engine."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from model.causal_lm.forward import check_readable, context_length
from model.decoding.generation_config import explicit_settings
from model.decoding.merged import new_rows, verifies
from model.decoding.row import LiveRow
from model.errors import MicroStepError, TextError, TooLarge
from model.hub.loading import LoadedModel
from model.hub.wrap_base import wrap
from model.text.conversation import read_conversation
from model.text.document import TextInput
from model.text.encoding import encode
from serving.answer_text import StopStringCriterion, TokenBytes
from serving.engine import Engine
from serving.errors import LONGEST_MESSAGE, ApiError
from serving.options import LimitOptions, SegmentOptions
from serving.protocol import SEEDS, ApiRequest, ChatRequest, CompletionRequest, SegmentRequest

MOST_NEW_TOKENS = 1024  # of a chat answer whose request does not say
MIN_TEMPERATURE = 1e-3  # below it, answers are greedy, as they would be but for rounding
NO_CONTEXT = 32_768  # tokens of prompt and answer, for models that state no limit


@dataclass(frozen=True)
class PreparedRows:
    """The rows of one request."""

    rows: tuple[LiveRow, ...]
    lossless: bool
    prompt_tokens: int


class Service:
    """One model, its engine, and how it answers unless a request says otherwise.

    Args:
        loaded: a micro_step model, or any base, which then writes alone.
        name: under which requests name it.
        segments: how segments end unless a request says otherwise.
        limits: what requests may ask for.
    """

    def __init__(self, loaded: LoadedModel, name: str, segments: SegmentOptions, limits: LimitOptions) -> None:
        wrapped = wrap(loaded)
        self.model, self.name, self.segments, self.limits = wrapped.model, name, segments, limits
        self.tokenizer, self.plain = loaded.tokenizer, wrapped.facts.untrained
        if self.plain and segments != SegmentOptions():
            raise MicroStepError(f"{name} is no micro_step model: it has no segments, so leave their options out")
        self.tokens = TokenBytes(loaded.tokenizer)
        self.context = context_length(self.model) or NO_CONTEXT
        self.created = int(time.time())
        self.engine = Engine(self.model, limits.max_rows, limits.max_waiting)
        self.model.generate_segments(  # settings that do not fit the model are refused before the first request
            torch.tensor([[1, 1]], device=self.model.device), max_new_tokens=2, **self._segments(SegmentRequest())
        )

    @property
    def facts(self) -> dict[str, Any]:
        """What `/v1/models` says of the model."""
        config, how = self.model.config, self.segments
        segments = {
            "decoding": "lossless" if verifies(self.model, how.lossless) else "merged",
            "rule": how.rule,
            "confidence": how.confidence,
            "max_segment_length": how.max_segment_length or config.max_segment_length,
        }
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "micro_step",
            "max_model_len": self.context,
            "micro_step": None if self.plain else segments,
        }

    def prepare(self, request: ApiRequest) -> PreparedRows:
        """Read the prompts of a request, and return its rows.

        Raises:
            ApiError: the request cannot be answered, with the reason.
        """
        if request.model != self.name:
            message = f"there is no model {request.model[:200]!r} here; this server has {self.name!r}"
            raise ApiError(404, message, param="model", code="model_not_found")
        try:
            prompts = self._prompts(request)
            seed = random.getrandbits(63) if request.seed is None else request.seed
            count = len(prompts) * request.choices
            if count > self.limits.max_rows:
                raise ApiError(400, f"at most {self.limits.max_rows} answers a request, got {count}", param="n")
            rows = [
                self._row(request, prompt, (seed + choice) % SEEDS)
                for prompt in prompts
                for choice in range(request.choices)
            ]
        except TooLarge as error:
            raise ApiError(400, str(error), code="context_length_exceeded") from error
        except MicroStepError as error:
            raise ApiError(400, str(error)[:LONGEST_MESSAGE]) from error
        return PreparedRows(tuple(rows), self._lossless(request), sum(map(len, prompts)))

    def _prompts(self, request: ApiRequest) -> list[list[int]]:
        if isinstance(request, ChatRequest):
            if not getattr(self.tokenizer, "chat_template", None):
                raise TextError(f"{self.name} has no chat template; use /v1/completions")
            document = read_conversation([dict(message) for message in request.messages], "messages")
            return [self._encoded(TextInput(document, chat=True), reply=True)]
        assert isinstance(request, CompletionRequest)
        prompts = [
            self._encoded(TextInput.plain(each), reply=False) if isinstance(each, str) else list(each)
            for each in request.prompts
        ]
        if not all(prompts):
            raise TextError("a prompt is empty")
        return prompts

    def _encoded(self, text: TextInput, reply: bool) -> list[int]:
        encoded = encode(text, self.tokenizer, reply)
        return [*encoded.prefix, *encoded.ids.tolist()]

    def _row(self, request: ApiRequest, prompt: list[int], seed: int) -> LiveRow:
        room = self.context - len(prompt)
        new_tokens = min(MOST_NEW_TOKENS, room) if request.new_tokens is None else request.new_tokens
        if new_tokens > room or room < 1:
            raise TooLarge(
                f"the prompt has {len(prompt)} tokens and the answer {max(new_tokens, 1)}, but the context of"
                f" {self.name} holds {self.context}; request fewer"
            )
        check_readable(self.model, [np.array(prompt)], len(prompt))
        temperature = 1.0 if request.temperature is None else request.temperature
        sampled = temperature >= MIN_TEMPERATURE
        warped = {"temperature": temperature, "top_p": request.top_p or 1.0} if sampled else {}
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

    def _segments(self, asked: SegmentRequest) -> dict[str, Any]:
        """How segments end: as a request says, else as the server was started."""
        if self.plain:
            if asked != SegmentRequest():
                raise MicroStepError(f"{self.name} is no micro_step model: leave out micro_step")
            return {"confidence": 2.0, "verify": False}  # the base writes alone
        default = self.segments
        return {
            "rule": default.rule if asked.rule is None else asked.rule,
            "confidence": default.confidence if asked.confidence is None else asked.confidence,
            "verify": default.lossless if asked.verify is None else asked.verify,
            "eps": default.eps if asked.eps is None else asked.eps,
            "max_segment_length": asked.max_segment_length or default.max_segment_length,
        }

    def _lossless(self, request: ApiRequest) -> bool:
        return verifies(self.model, self._segments(request.micro_step or SegmentRequest())["verify"])
