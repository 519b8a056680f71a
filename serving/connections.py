"""Connections of the server: what uvicorn leaves out. Nobody can hold one without sending or reading anything."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import h11
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.errors import RETRY_AFTER, ApiError

MOST_CONNECTIONS = 512  # open at once; requests on further ones get 503
HEADER_SECONDS = 10.0  # for the headers of a request to arrive
READ_SECONDS = 60.0  # for a client to take anything of an answer that waits for it


class GuardedConnection(H11Protocol):
    """One connection of uvicorn, with limits of time and errors of OpenAI's form."""

    _arriving: asyncio.TimerHandle | None = None  # ends the wait for headers, or for what nobody reads any more
    _unread: asyncio.TimerHandle | None = None  # ends the wait for a client that reads nothing

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            self.app = _too_many
        self._arriving = self.loop.call_later(HEADER_SECONDS, self._late)

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        super().data_received(data)
        answered = self.conn.our_state is h11.DONE  # before all of the request's body has come
        if self.conn.their_state is not h11.IDLE and not answered:
            self._arriving = _cancelled(self._arriving)
        elif self._arriving is None:
            self._arriving = self.loop.call_later(HEADER_SECONDS, self._late)

    def pause_writing(self) -> None:
        """The client does not read what was sent to it."""
        super().pause_writing()
        self._unread = self.loop.call_later(READ_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """The client reads again."""
        super().resume_writing()
        self._unread = _cancelled(self._unread)

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        super().connection_lost(exc)
        self._arriving, self._unread = _cancelled(self._arriving), _cancelled(self._unread)

    def send_400_response(self, msg: str) -> None:
        """What was sent is not HTTP."""
        self._refuse(ApiError(400, msg))

    def _late(self) -> None:
        if not self.transport.is_closing():
            self._refuse(ApiError(408, f"the headers of the request did not arrive within {HEADER_SECONDS:g} seconds"))

    def _refuse(self, error: ApiError) -> None:
        """Answer outside of any request, and close."""
        body = json.dumps(error.body).encode()
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body))), ("Connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=error.status, headers=headers),
                h11.Data(data=body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event))
        self.transport.close()


async def _too_many(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request on one connection too many."""
    error = ApiError(503, "too many connections are open; try again later", "server_error")
    headers = [
        (b"content-type", b"application/json"),
        (b"retry-after", RETRY_AFTER.encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(error.body).encode()})


def _cancelled(timer: asyncio.TimerHandle | None) -> Any:
    if timer is not None:
        timer.cancel()
    return None
