"""Options of the command `generate`: how an answer is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from model.command_options import EpsValues, ListOf, MaxNewTokens, SamplingOptions
from model.errors import MicroStepError

if TYPE_CHECKING:
    from analysis.generation.result import Decoding

TAU = 0.8


@dataclass(frozen=True)
class StoppingOptions:
    """When a micro_step model ends a segment, and an answer."""

    rule: Annotated[str, typer.Option(help="When a segment ends: confidence, product or stop_head.")] = "confidence"
    confidence: Annotated[
        tuple[float, ...] | None,
        typer.Option(help=f"tau of the rule, {TAU:g} if not given; above 1 the base alone writes. Several: 0.3,0.5."),
        ListOf(float, least=0),
    ] = None
    lossless: Annotated[
        bool | None, typer.Option("--lossless/--merged", help="Default: what the model was trained for.")
    ] = None
    max_new_tokens: MaxNewTokens = 64

    @classmethod
    def of(cls, decoding: Decoding, lossless: bool | None, taus: Sequence[float] | None = None) -> StoppingOptions:
        """The options that say the same."""
        return cls(decoding.rule, tuple(taus or (decoding.tau,)), lossless, decoding.max_new_tokens)

    @property
    def tau(self) -> float:
        """The one value.

        Raises:
            MicroStepError: there are several.
        """
        if self.confidence is not None and len(self.confidence) > 1:
            raise MicroStepError("give one value with --confidence")
        return TAU if self.confidence is None else self.confidence[0]


@dataclass(frozen=True)
class AnswerOptions:
    """How segments and tokens of an answer are chosen, beside its ends."""

    max_segment_length: Annotated[int, typer.Option(min=1, help="M, the most tokens of a segment.")] = 4
    repetition_penalty: Annotated[float, typer.Option(help="As in transformers; 1 means no penalty.")] = 1.0
    eps: EpsValues = (1.0,)

    def decoding(self, stopping: StoppingOptions, sampling: SamplingOptions, tau: float) -> Decoding:
        """The value that a request takes."""
        from analysis.generation.result import Decoding

        return Decoding(
            stopping.rule,
            tau,
            self.max_segment_length,
            stopping.lossless,
            stopping.max_new_tokens,
            sampling.sampling(),
            self.repetition_penalty,
            self.eps[0],
        )
