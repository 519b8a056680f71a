"""A request while it is answered: it receives segments from the engine's thread and hands them to the event loop."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial

from model.decoding.output import RowOutput
from model.decoding.row import LiveRow
from model.decoding.stopping import Why
from serving.answer_text import AnswerText
from serving.errors import ApiError
from serving.model_service import ModelService, PreparedRows
from serving.protocol import ApiRequest


@dataclass(frozen=True)
class WrittenSegment:
    """One more segment of an answer."""

    choice: int
    macro_step: int  # from 0
    why: Why
    ids: list[int]
    probability: list[float]
    topk: list[tuple[list[int], list[float]]]  # empty if not requested
    over: bool


class Job:
    """A request and its answers.

    Args:
        service: the model.
        request: what was asked.
        prepared: the rows of its answers.
    """

    def __init__(self, service: ModelService, request: ApiRequest, prepared: PreparedRows) -> None:
        self.service, self.request, self.prepared = service, request, prepared
        self.id, self.created, self.began = uuid.uuid4().hex, int(time.time()), time.perf_counter()
        self.texts = [AnswerText(service.tokens, request.stops) for _ in prepared.rows]
        self.first_token: float | None = None  # seconds until it was there
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[WrittenSegment | Exception] = asyncio.Queue()
        for choice, row in enumerate(prepared.rows):
            row.on_segment = partial(self._told, choice, row)

    @property
    def rows(self) -> tuple[LiveRow, ...]:
        return self.prepared.rows

    def start(self) -> None:
        """Hand the rows to the engine."""
        self.service.engine.submit(self.rows, self.prepared.lossless)

    def stop(self) -> None:
        """Free the rows that are not over."""
        self.service.engine.drop(self.rows)

    async def segments(self) -> AsyncIterator[WrittenSegment]:
        """The segments of all answers as they are written.

        Raises:
            ApiError: an answer could not be written.
        """
        left = len(self.rows)
        while left:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise ApiError(500, str(event), "server_error")
            if self.first_token is None:
                self.first_token = time.perf_counter() - self.began
            left -= event.over
            yield event

    def _told(self, choice: int, row: LiveRow, out: RowOutput) -> None:
        """Called in the engine's thread after each segment, and after an error."""
        event: WrittenSegment | Exception
        if row.error is not None:
            event = row.error
        else:
            new = slice(out.starts[-1], None)
            event = WrittenSegment(
                choice, len(out.starts) - 1, out.why[-1], out.ids[new], out.probability[new], out.topk[new], row.over
            )
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
