"""A row of a batch while it is written: what it has written so far, and how it is to be written.

Rows of one batch may differ in everything that stands here, and no row's answer depends on the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from model.decoding.output import RowOutput
from model.errors import MicroStepError

if TYPE_CHECKING:
    from transformers import LogitsProcessorList

    from model.decoding.stopping import StopRule


@dataclass(frozen=True)
class SegmentSettings:
    """When the segments of a row end."""

    rule: StopRule
    tau: float
    max_length: int  # M
    eps: float = 1.0  # of the check, if the base checks drafts

    @property
    def alone(self) -> bool:
        """True if the base writes alone because no probability reaches tau."""
        return self.tau > 1


@dataclass(frozen=True)
class TokenSettings:
    """How the tokens of a row are chosen, and when its answer ends."""

    processors: LogitsProcessorList  # they see only the row's own tokens, without padding
    max_new_tokens: int
    ends: frozenset[int]  # ids that end the answer
    times: tuple[Any, ...]  # criteria of transformers that limit the time
    others: tuple[Any, ...]  # other criteria that end the answer
    sampled: bool  # tokens are sampled; else the likeliest are taken
    generator: torch.Generator | None  # rows that share one are drawn together; None: torch's global one
    topk: int  # keep this many likeliest words of each new token


@dataclass(eq=False)
class LiveRow:
    out: RowOutput
    segments: SegmentSettings
    tokens: TokenSettings
    on_segment: Callable[[RowOutput], None]
    over: bool = False  # the answer has ended, or cannot be continued
    error: MicroStepError | None = None  # why the row cannot be continued; other rows go on

    told: int = 0  # segments that were passed on
    _before: RowOutput | None = None  # what was written before the row began again

    @property
    def room(self) -> int:
        """Number of tokens that may still be written."""
        return self.tokens.max_new_tokens - len(self.out.ids)

    def tell(self) -> None:
        """Pass on what is written, after a segment or an error."""
        count = len(self.out.starts)
        if self._before is not None and count <= self.told and self.error is None:
            if self.out.segments != self._before.segments[:count]:
                raise MicroStepError("the answer is not the one that was begun before an error")
            return
        self.told = count
        self.on_segment(self.out)

    def begin_again(self) -> None:
        """Forget what is written, after an error. What was passed on is written once more, but not passed on again.

        The row must have its generator for itself. Its criteria must notice that the answer begins again.
        """
        self._before, self.out, self.over = self.out, RowOutput(self.out.prompt), False
        if (generator := self.tokens.generator) is not None:
            new = torch.Generator(generator.device).manual_seed(generator.initial_seed())
            self.tokens = replace(self.tokens, generator=new)
