"""The HTTP side of the server: routes, who may enter, and what a request that goes wrong is told."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from model.crash_log import fault
from model.errors import MicroStepError
from serving.errors import RETRY_AFTER, ApiError, refused
from serving.job import Job
from serving.metrics import Metrics
from serving.model_service import ModelService
from serving.protocol import ApiRequest, ChatRequest, CompletionRequest
from serving.responses import Wording
from serving.row_engine import EngineBusy

BODY_SECONDS = 30.0  # for a request to arrive
FORGOTTEN = 8  # times the largest size that are received, so that a client which sends all before it reads is told so
_LOCAL = ("localhost", "")

Answer = TypeVar("Answer")
Endpoint = Callable[[Request], Awaitable[Response]]


def build_app(service: ModelService, api_key: str | None = None, hosts: Sequence[str] = ()) -> Starlette:
    """Return the ASGI application.

    Args:
        service: the model.
        api_key: key that requests under /v1 must carry; None: none.
        hosts: names under which the server is reached, beside localhost and addresses.
    """
    return Api(service, api_key, hosts).app


class Api:
    """The routes of one server."""

    def __init__(self, service: ModelService, api_key: str | None, hosts: Sequence[str]) -> None:
        self.service, self.metrics = service, Metrics()
        self._key = None if api_key is None else api_key.strip().encode()
        self._hosts = {*_LOCAL, *(host.lower() for host in hosts)}
        endpoints: list[tuple[str, str, Endpoint]] = [
            ("/v1/chat/completions", "POST", lambda request: self._complete(request, ChatRequest)),
            ("/v1/completions", "POST", lambda request: self._complete(request, CompletionRequest)),
            ("/v1/models", "GET", self._models),
            ("/v1/models/{name:path}", "GET", self._model),
            ("/health", "GET", self._health),
            ("/metrics", "GET", self._metrics),
        ]
        routes = [Route(path, self._guarded(path, endpoint), methods=[how]) for path, how, endpoint in endpoints]
        self.app = Starlette(routes=routes, exception_handlers={HTTPException: _unknown_route})
        self.app.router.redirect_slashes = False  # a redirect would go out before anyone is refused

    def _guarded(self, path: str, endpoint: Endpoint) -> Endpoint:
        """Let a request in, and tell what goes wrong in the form of OpenAI's API."""

        async def handle(request: Request) -> Response:
            try:
                self._enter(request)
                response = await endpoint(request)
            except ApiError as error:
                response = JSONResponse(error.body, error.status, error.headers)
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody reads it
            except Exception as error:  # noqa: BLE001 - the outer net: told in one sentence, and logged
                response = JSONResponse(_unexpected(error).body, 500)
            self.metrics.requests[path, response.status_code] += 1
            return response

        return handle

    def _enter(self, request: Request) -> None:
        """Refuse a request that names another host, as those of foreign web pages do, or that has no key."""
        if not self._is_known(request.headers.get("host", "")):
            message = "the Host header names no host of this server; name it with --allowed-host"
            raise ApiError(403, message, code="host_not_allowed")
        if self._key is None or not request.url.path.startswith("/v1/"):
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode("latin-1"), self._key):
            raise ApiError(401, "the API key is missing or wrong", "authentication_error", code="invalid_api_key")

    def _is_known(self, host: str) -> bool:
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        if name.lower() in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # a foreign page can make its name lead here, but has no address as its name

    async def _complete(self, request: Request, kind: type[ApiRequest]) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "the body must be JSON, with Content-Type: application/json")
        try:
            asked = kind.model_validate_json(await self._body(request))
        except ValidationError as error:
            raise refused(error) from None
        job = Job(self.service, asked, await asyncio.to_thread(self.service.prepare, asked))
        try:
            job.start()
        except EngineBusy as error:
            raise ApiError(429, str(error), "rate_limit_error", headers={"Retry-After": RETRY_AFTER}) from error
        except MicroStepError as error:
            raise ApiError(503, str(error), "server_error") from error
        if asked.stream:
            return SegmentStream(job, self.metrics)
        try:
            written = await _unless_disconnected(request, _collected(job))
            return _json(Wording(job).whole(written))
        finally:
            job.stop()
            self.metrics.done(job, time.perf_counter() - job.began)

    async def _body(self, request: Request) -> bytes:
        """Read the body, unless it is too large or too slow."""
        most, body, size = self.service.limits.max_body, bytearray(), 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for part in request.stream():
                    size += len(part)
                    if size <= most:
                        body += part
                    elif size > FORGOTTEN * most:
                        break
        except TimeoutError:
            raise ApiError(408, f"the request did not arrive within {BODY_SECONDS:g} seconds") from None
        if size > most:
            raise ApiError(413, f"a request may have {most:,} bytes", code="request_too_large")
        return bytes(body)

    async def _models(self, _: Request) -> Response:
        return _json({"object": "list", "data": [self.service.facts]})

    async def _model(self, request: Request) -> Response:
        if request.path_params["name"] != self.service.name:
            raise ApiError(404, "there is no such model here", param="model", code="model_not_found")
        return _json(self.service.facts)

    async def _health(self, _: Request) -> Response:
        if not self.service.engine.alive:
            raise ApiError(503, "the engine has stopped; restart the server", "server_error")
        return _json({"status": "ok"})

    async def _metrics(self, _: Request) -> Response:
        return PlainTextResponse(self.metrics.text(self.service), media_type="text/plain; version=0.0.4")


class SegmentStream(StreamingResponse):
    """The answers of a request as server-sent events, one a segment. If the client leaves, the rows are freed."""

    def __init__(self, job: Job, metrics: Metrics) -> None:
        super().__init__(_events(job), media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        self._job, self._metrics = job, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._job.stop()
            self._metrics.done(self._job, time.perf_counter() - self._job.began)


async def _events(job: Job) -> AsyncIterator[bytes]:
    wording = Wording(job)
    try:
        async for segment in job.segments():
            yield _event(wording.chunk(segment))
        if job.request.usage_in_stream:
            yield _event(wording.usage_chunk())
    except ApiError as error:
        yield _event(error.body)
    except Exception as error:  # noqa: BLE001 - as above
        yield _event(_unexpected(error).body)
    yield b"data: [DONE]\n\n"


async def _collected(job: Job) -> list[Any]:
    return [segment async for segment in job.segments()]


async def _unless_disconnected(request: Request, work: Awaitable[Answer]) -> Answer:
    """Wait for something unless the client leaves.

    Raises:
        ClientDisconnect: it has left.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        done, _ = await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task not in done:
            raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unknown_route(request: Request, error: Exception) -> Response:
    """Say in OpenAI's form that a path or method does not exist."""
    assert isinstance(error, HTTPException)
    return JSONResponse(ApiError(error.status_code, f"{request.method} {error.detail}").body, error.status_code)


def _unexpected(error: Exception) -> ApiError:
    print(fault(error, "serving"), file=sys.stderr, flush=True)
    return ApiError(500, "something unexpected went wrong; the server's log says what", "server_error")


def _json(content: dict[str, Any]) -> Response:
    return Response(_dumped(content), media_type="application/json")


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + _dumped(content) + b"\n\n"


def _dumped(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
