"""Connections that send too little, read too little, or are too many, end with an error of OpenAI's form."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import uvicorn
from uvicorn.server import ServerState

from serving import connections
from serving.connections import GuardedConnection
from tests.support.processes import run_coroutine

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
SECONDS = 0.3


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for name in ("HEADER_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(connections, name, SECONDS)
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)


async def hello(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"hi"})


@asynccontextmanager
async def listening(app):
    config = uvicorn.Config(app, ws="none", lifespan="off", log_level="critical")
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: GuardedConnection(config, state, {}), "127.0.0.1")
    async with server:
        yield server.sockets[0].getsockname(), state


def answer(sent, app=hello, more=b""):
    """All that a client receives that sends something, and soon after something more, twice."""

    async def talk():
        async with listening(app) as (address, _):
            reader, writer = await asyncio.open_connection(*address)
            writer.write(sent)
            for _ in range(2 if more else 0):
                await asyncio.sleep(0.03)
                writer.write(more)
            async with asyncio.timeout(20):
                received = await reader.read()
            writer.close()
            return received

    return run_coroutine(talk())


@pytest.mark.parametrize(
    ("sent", "more", "status"),
    [(b"", b"", 408), (GET[:-2], b"", 408), (GET[:9], b"x", 408), (b"\x16\x03\x01\r\n\r\n", b"", 400)],
)
def test_whoever_sends_no_headers_is_told_so(sent, more, status):
    head, _, body = answer(sent, more=more).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status) and b"application/json" in head
    assert set(json.loads(body)["error"]) == {"message", "type", "param", "code"}


def test_a_kept_connection_may_be_silent_but_not_slow():
    assert answer(GET, more=b"G").count(b"HTTP/1.1") == 2


def test_a_body_that_nobody_reads_any_more_is_not_waited_for():
    post = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    assert answer(post, more=b"x").startswith(b"HTTP/1.1 200")


def test_further_connections_are_told_to_come_back():
    async def talk():
        async with listening(hello) as (address, _):
            held = [await asyncio.open_connection(*address) for _ in range(3)]
            reader, writer = await asyncio.open_connection(*address)
            writer.write(GET)
            refused = await reader.read()
            late = [await each.read() for each, _ in held]
            reader, writer = await asyncio.open_connection(*address)
            writer.write(GET.replace(b"localhost\r\n", b"localhost\r\nConnection: close\r\n"))
            return refused, late, await reader.read()

    refused, late, after = run_coroutine(talk())
    assert refused.startswith(b"HTTP/1.1 503") and b"retry-after" in refused and b"server_error" in refused
    assert all(each.startswith(b"HTTP/1.1 408") for each in late) and after.endswith(b"hi")


def test_whoever_reads_nothing_is_left():
    left = asyncio.Event()

    async def endless(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(200):
            await send({"type": "http.response.body", "body": b"a" * 1_000_000, "more_body": True})
        left.set()  # uvicorn takes and forgets what it cannot send any more

    async def talk():
        async with listening(endless) as (address, state):
            reader, writer = await asyncio.open_connection(*address, limit=1)
            reader._transport.pause_reading()
            writer.write(GET)
            async with asyncio.timeout(20):
                await left.wait()
            assert not state.connections
            writer.transport.abort()

    run_coroutine(talk())
