"""Turn what vLLM writes in each of its steps into a row's segments."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from model.decoding.row import LiveRow
from model.decoding.stopping import Why
from model.errors import MicroStepError
from serving.vllm_plugin.proposer import StepNote

NO_DRAFT = StepNote((), "unsure")
TokenLogprobs = Mapping[int, Any]  # id: vLLM's Logprob, with `logprob` and `rank`, of the token and the likeliest


@dataclass(eq=False)
class EngineRow(LiveRow):
    """A row that vLLM writes.

    A pass of the base gives the drafted tokens that it keeps, and one token of its own. So a step's last token opens a
    segment, and the next step's kept tokens complete it.
    """

    sampling: dict[str, Any] = field(default_factory=dict)  # arguments of vLLM's SamplingParams
    seconds: float = math.inf  # most for the answer
    began: float = field(default_factory=time.perf_counter)
    note: StepNote | None = None  # of the last step: what it drafted, and this step has checked

    def take(
        self, ids: Sequence[int], logprobs: Sequence[TokenLogprobs], finished: str | None, new: StepNote | None
    ) -> None:
        """Add a step's tokens, and pass on the segment that they complete.

        Args:
            ids: the tokens; the last is the base's own, unless the answer ended before it.
            logprobs: of each token.
            finished: why vLLM ended the answer; None: it goes on.
            new: what the proposer did in this step.
        """
        note, self.note = self.note or NO_DRAFT, new
        drafted = note.drafted
        first = not self.out.macro_steps
        self.out.macro_steps += 1
        self.out.drafted += len(drafted)
        own = first
        for number, (id_, found) in enumerate(zip(ids, logprobs, strict=True)):
            own = number >= len(drafted) or id_ != drafted[number]  # the base's token in its place differs
            if own and not first:
                self._close("disagreed" if number < len(drafted) else note.why)
            if own:
                self.out.open()
            self.out.accepted += not own
            if (reason := self._append(id_, found)) is not None:
                self._end(reason, self._slots(own))
                return
        if finished is not None:
            self._end("end" if finished == "stop" else "limit", self._slots(own))

    def _append(self, token: int, found: TokenLogprobs) -> Why | None:
        """Append a token; return why the row is over, or None."""
        logprob = float(found[token].logprob)
        if math.isnan(logprob):
            self.error = MicroStepError(f"new token {len(self.out.ids) + 1} has a probability that is no number")
            return "end"
        self.out.add(token, math.exp(logprob), time.perf_counter() - self.began)
        if k := self.tokens.topk:
            best = sorted((each.rank, id_, each.logprob) for id_, each in found.items() if each.rank <= k)
            self.out.topk.append(([id_ for _, id_, _ in best], [math.exp(each) for *_, each in best]))
        written = torch.tensor([self.out.prompt + self.out.ids]) if self.tokens.others else None
        self.out.ended = token in self.tokens.ends or any(end(written, None) for end in self.tokens.others)
        if self.out.ended:
            return "end"
        if self.room <= 0:
            return "limit"
        return "time" if time.perf_counter() - self.began > self.seconds else None

    def _close(self, why: Why) -> None:
        self.out.close(why)
        self.tell()

    def _end(self, why: Why, slots: int) -> None:
        self.over, self.out.cache_slots = True, slots
        self._close(why)

    def _slots(self, own: bool) -> int:
        return len(self.out.prompt) + len(self.out.ids) - own


@dataclass(eq=False)
class MergedRow(EngineRow):
    """A row that vLLM writes merged: all tokens of a step are one segment."""

    def take(
        self, ids: Sequence[int], logprobs: Sequence[TokenLogprobs], finished: str | None, new: StepNote | None
    ) -> None:
        """Add a step's segment, and pass it on (see `EngineRow.take`)."""
        self.out.macro_steps += 1
        self.out.open()
        slots = len(self.out.prompt) + len(self.out.starts) - 1
        for id_, found in zip(ids, logprobs, strict=True):
            if (reason := self._append(id_, found)) is not None:
                self._end(reason, slots)
                return
        if finished is not None:
            self._end("end" if finished == "stop" else "limit", slots)
        else:
            self._close((new or NO_DRAFT).why)
