"""Requests of OpenAI's API as this server reads them. A field that would change the answer is supported or refused."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, model_validator

MAX_STOPS = 16
MAX_STOP = 1000  # characters of a stop string
MAX_CHOICES = 128
SEEDS = 2**63  # torch takes seeds below this
DEFAULT_COMPLETION = 16  # tokens of a completion without max_tokens, as OpenAI's API has it


_WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "echo": (False,),
    "suffix": ("",),
    "best_of": (1,),
}
"""Fields of OpenAI's API that are accepted only with these values."""

Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP)]
TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class SegmentRequest(_Strict):
    """How a micro_step model ends segments; what is not given is as the server was started."""

    confidence: Annotated[float, Field(ge=0)] | None = None
    rule: str | None = None
    verify: StrictBool | None = None
    eps: Annotated[float, Field(gt=0, le=1)] | None = None
    max_segment_length: Annotated[int, Field(ge=1)] | None = None


class StreamOptions(_Strict):
    include_usage: bool = False
    include_obfuscation: bool = False  # accepted; nothing is added


class ApiRequest(_Strict):
    """What both kinds of request have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-SEEDS, lt=SEEDS)] | None = None
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    micro_step: SegmentRequest | None = None

    frequency_penalty: Any = None
    presence_penalty: Any = None
    logit_bias: Any = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _supported(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options needs stream")
        for name, values in _WITHOUT_EFFECT.items():
            value = getattr(self, name, None)
            if value is not None and value not in values:
                raise ValueError(f"this server does not support {name}; leave it out")
        return self

    @property
    @abstractmethod
    def new_tokens(self) -> int | None:
        """Most tokens of an answer; None: as many as fit."""

    @property
    @abstractmethod
    def topk(self) -> int | None:
        """How many likeliest words are told of each token; None: no probabilities are told."""

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def usage_in_stream(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


class ChatRequest(ApiRequest):
    messages: Annotated[list[dict[str, Any]], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    tools: Any = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    functions: Any = None
    response_format: Any = None
    modalities: Any = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        return self

    @property
    def new_tokens(self) -> int | None:
        """Most tokens of an answer; None: as many as fit."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def topk(self) -> int | None:
        """How many likeliest words are told of each token; None: no probabilities are told."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(ApiRequest):
    prompt: str | TokenIds | Annotated[list[str | TokenIds], Field(min_length=1, max_length=MAX_CHOICES)]
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    echo: Any = None
    suffix: Any = None
    best_of: Any = None

    @property
    def prompts(self) -> list[str | list[int]]:
        several = isinstance(self.prompt, list) and not isinstance(self.prompt[0], int)
        prompts: Any = self.prompt if several else [self.prompt]
        return list(prompts)

    @property
    def new_tokens(self) -> int | None:
        """Most tokens of an answer."""
        return self.max_tokens or DEFAULT_COMPLETION

    @property
    def topk(self) -> int | None:
        """How many likeliest words are told of each token; None: no probabilities are told."""
        return self.logprobs
