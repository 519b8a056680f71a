"""A server's application around a small trained model, with its engine running, and clients for it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from model.hub.loading import load
from model.hub.spec import ModelSpec
from serving.api import build_app
from serving.options import LimitOptions, SegmentOptions
from serving.service import Service


@contextmanager
def served(
    name: str = "micro-step-tiny", key: str | None = None, segments: SegmentOptions | None = None, **limits: Any
) -> Iterator[Served]:
    """Serve a model within the block."""
    service = Service(load(ModelSpec(name)), name, segments or SegmentOptions(), LimitOptions(**limits))
    service.engine.start()
    try:
        yield Served(service, key)
    finally:
        service.engine.close()


class Served:
    """A running service and its application."""

    def __init__(self, service: Service, key: str | None) -> None:
        self.service, self.model, self.name = service, service.model, service.name
        self.app = build_app(service, key)

    def client(self) -> httpx2.AsyncClient:
        """A client of the application itself, without a socket."""
        return httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://localhost", timeout=120, follow_redirects=False
        )

    async def chunks(self, client: httpx2.AsyncClient, path: str = "completions", **body: Any) -> list[dict[str, Any]]:
        """The chunks of a streamed answer."""
        answer = await client.post(f"/v1/{path}", json={"model": self.name, "stream": True, **body})
        assert answer.status_code == 200, answer.text
        *events, done = answer.text.strip().split("\n\n")
        assert done == "data: [DONE]"
        return [json.loads(event.removeprefix("data: ")) for event in events]
