"""Answers in the form of OpenAI's API, with what this project adds under `micro_step`."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from model.text.encoding import token_strings
from serving.job import Job, WrittenSegment
from serving.protocol import ChatRequest

FINISH = {"end": "stop", "limit": "length", "time": "length"}
LEAST_LOGPROB = -9999.0  # JSON has no minus infinity


class Wording:
    """Writes the parts of one request's answer.

    Args:
        job: the request.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.chat = job, isinstance(job.request, ChatRequest)
        self._offset = [0] * len(job.rows)  # characters of each answer so far, of its tokens with probabilities
        self._characters = [codecs.getincrementaldecoder("utf-8")("replace") for _ in job.rows]

    def chunk(self, segment: WrittenSegment) -> dict[str, Any]:
        """One chunk of a stream: one segment of one answer."""
        text = self.text(segment)
        choice: dict[str, Any] = {"index": segment.choice}
        if self.chat:
            role = {} if segment.macro_step else {"role": "assistant"}
            choice["delta"] = {**role, "content": text}
        else:
            choice["text"] = text
        choice |= {"logprobs": self.logprobs([segment]), "finish_reason": finish(segment)}
        more = {"usage": None} if self.job.request.usage_in_stream else {}
        return {**self._head(".chunk"), "choices": [choice], **more, "micro_step": self.segment(segment)}

    def usage_chunk(self) -> dict[str, Any]:
        """The last chunk of a stream that was asked for its usage."""
        return {**self._head(".chunk"), "choices": [], "usage": self.usage()}

    def whole(self, written: Sequence[WrittenSegment]) -> dict[str, Any]:
        """The answer at once."""
        choices = []
        for number in range(len(self.job.rows)):
            own = [segment for segment in written if segment.choice == number]
            text = "".join(map(self.text, own))
            said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
            choices.append({"index": number, **said, "logprobs": self.logprobs(own), "finish_reason": finish(own[-1])})
        return {**self._head(""), "choices": choices, "usage": self.usage()}

    def text(self, segment: WrittenSegment) -> str:
        """The text that becomes certain with a segment."""
        return self.job.texts[segment.choice].add(segment.ids, segment.over)

    def segment(self, segment: WrittenSegment) -> dict[str, Any]:
        """What a chunk says of its segment."""
        texts = token_strings(self.job.service.tokenizer, np.array(segment.ids, dtype=np.int64))
        tokens = [
            {"id": i, "text": text, "probability": p, "written_by": "micro" if at else "base"}
            for at, (i, text, p) in enumerate(zip(segment.ids, texts, segment.probability, strict=True))
        ]
        return {"macro_step": segment.macro_step, "why": segment.why, "tokens": tokens}

    def logprobs(self, segments: Sequence[WrittenSegment]) -> dict[str, Any] | None:
        """The probabilities of the tokens that have text."""
        if self.job.request.topk is None:
            return None
        tokens = self.job.service.tokens
        told = [
            (segment.choice, self._told(id_, p), [self._told(*each) for each in zip(*best, strict=True)])
            for segment in segments
            for id_, p, best in zip(
                segment.ids, segment.probability, segment.topk or [([], [])] * len(segment.ids), strict=True
            )
            if id_ not in tokens.special
        ]
        if self.chat:
            return {"content": [{**token, "top_logprobs": best} for _, token, best in told], "refusal": None}
        offsets = []
        for choice, token, _ in told:
            offsets.append(self._offset[choice])
            self._offset[choice] += len(self._characters[choice].decode(bytes(token["bytes"])))
        return {
            "tokens": [token["token"] for _, token, _ in told],
            "token_logprobs": [token["logprob"] for _, token, _ in told],
            "top_logprobs": [{each["token"]: each["logprob"] for each in best} for _, _, best in told],
            "text_offset": offsets,
        }

    def _told(self, token: int, probability: float) -> dict[str, Any]:
        (data,) = self.job.service.tokens.of([token])
        return {
            "token": data.decode("utf-8", "replace"),
            "logprob": max(math.log(probability), LEAST_LOGPROB) if probability > 0 else LEAST_LOGPROB,
            "bytes": list(data),
        }

    def usage(self) -> dict[str, Any]:
        """What the answers took."""
        rows = [row.out for row in self.job.rows]
        new, steps = sum(len(row.ids) for row in rows), sum(row.macro_steps for row in rows)
        return {
            "prompt_tokens": self.job.prepared.prompt_tokens,
            "completion_tokens": new,
            "total_tokens": self.job.prepared.prompt_tokens + new,
            "micro_step": {
                "macro_steps": steps,
                "tokens_per_macro_step": new / max(1, steps),
                "cache_slots": sum(row.cache_slots for row in rows),
                "drafted": sum(row.drafted for row in rows),
                "accepted": sum(row.accepted for row in rows),
            },
        }

    def _head(self, part: str) -> dict[str, Any]:
        kind = f"chat.completion{part}" if self.chat else "text_completion"
        prefix = "chatcmpl" if self.chat else "cmpl"
        return {
            "id": f"{prefix}-{self.job.id}",
            "object": kind,
            "created": self.job.created,
            "model": self.job.service.name,
        }


def finish(segment: WrittenSegment) -> str | None:
    """Why an answer ended, if it ended with this segment."""
    return FINISH[segment.why] if segment.over else None
