"""What every server of a model has in common, whichever engine writes: it reads prompts, and asks for rows."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from model.decoding.row import LiveRow
from model.errors import MicroStepError, TextError, TooLarge
from model.text.conversation import read_conversation
from model.text.document import TextInput
from model.text.encoding import encode
from serving.answer_text import TokenBytes
from serving.errors import LONGEST_MESSAGE, ApiError
from serving.options import LimitOptions, SegmentOptions
from serving.protocol import SEEDS, ApiRequest, ChatRequest, CompletionRequest, SegmentRequest
from serving.row_engine import RowEngine

MOST_NEW_TOKENS = 1024  # of a chat answer whose request does not say
MIN_TEMPERATURE = 1e-3  # below it, answers are greedy, as they would be but for rounding
NO_CONTEXT = 32_768  # tokens of prompt and answer, for models that state no limit


@dataclass(frozen=True)
class PreparedRows:
    """The rows of one request."""

    rows: tuple[LiveRow, ...]
    lossless: bool
    prompt_tokens: int


@dataclass(frozen=True)
class ServedModel:
    """What a server must know of its model."""

    name: str  # under which requests name it
    tokenizer: PreTrainedTokenizerBase
    context: int  # tokens of prompt and answer
    plain: bool  # it is no micro_step model
    max_segment_length: int
    lossless: bool  # the base checks drafts unless a request says otherwise


class ModelService(ABC):
    """A model behind the API.

    Args:
        served: the model.
        segments: how segments end unless a request says otherwise.
        limits: what requests may ask for.
    """

    engine: RowEngine

    def __init__(self, served: ServedModel, segments: SegmentOptions, limits: LimitOptions) -> None:
        self.served, self.segments, self.limits = served, segments, limits
        self.name, self.tokenizer, self.context = served.name, served.tokenizer, served.context
        if served.plain and segments != SegmentOptions():
            raise MicroStepError(f"{self.name} is no micro_step model: it has no segments, so leave their options out")
        self.tokens = TokenBytes(served.tokenizer)
        self.created = int(time.time())

    @property
    def facts(self) -> dict[str, Any]:
        """What `/v1/models` says of the model."""
        how = self.segments
        segments = {
            "decoding": "lossless" if self.served.lossless else "merged",
            "rule": how.rule,
            "confidence": how.confidence,
            "max_segment_length": how.max_segment_length or self.served.max_segment_length,
        }
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "micro_step",
            "max_model_len": self.context,
            "micro_step": None if self.served.plain else segments,
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
                self._row(request, prompt, self._new_tokens(request, prompt), (seed + choice) % SEEDS)
                for prompt in prompts
                for choice in range(request.choices)
            ]
        except TooLarge as error:
            raise ApiError(400, str(error), code="context_length_exceeded") from error
        except MicroStepError as error:
            raise ApiError(400, str(error)[:LONGEST_MESSAGE]) from error
        return PreparedRows(tuple(rows), self._lossless(request), sum(map(len, prompts)))

    @abstractmethod
    def _row(self, request: ApiRequest, prompt: list[int], new_tokens: int, seed: int) -> LiveRow:
        """Return a row of a request.

        Raises:
            MicroStepError: the request cannot be answered.
        """

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

    def _new_tokens(self, request: ApiRequest, prompt: list[int]) -> int:
        """Most tokens of an answer."""
        room = self.context - len(prompt)
        new_tokens = min(MOST_NEW_TOKENS, room) if request.new_tokens is None else request.new_tokens
        if new_tokens > room or room < 1:
            raise TooLarge(
                f"the prompt has {len(prompt)} tokens and the answer {max(new_tokens, 1)}, but the context of"
                f" {self.name} holds {self.context}; request fewer"
            )
        return new_tokens

    def _segments(self, asked: SegmentRequest) -> dict[str, Any]:
        """How segments end: as a request says, else as the server was started."""
        if self.served.plain:
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
        verify: bool | None = self._segments(request.micro_step or SegmentRequest())["verify"]
        return self.served.lossless if verify is None else verify
