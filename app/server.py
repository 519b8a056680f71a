"""What `micro-step app` serves: the app, with the front end's files compressed, which quarters what a browser loads."""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

FRONT_END = Path(st.__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css"}
KEPT = "public, immutable, max-age=31536000"  # as Streamlit sends them: a file's name changes with its content
LEVEL = 6  # of gzip; the largest file takes 0.2 s, once


class CompressedFrontEnd:
    """Answers requests for scripts and style sheets of Streamlit's front end; passes all else on."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.files = {path.relative_to(FRONT_END).as_posix(): path for path in (FRONT_END / "static").rglob("*.*")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http" and scope["method"] == "GET":
            path = self.files.get(scope["path"].lstrip("/"))
            accepted = Headers(scope=scope).get("accept-encoding", "")
            if path is not None and path.suffix in TYPES and "gzip" in accepted:
                headers = {"Content-Encoding": "gzip", "Vary": "Accept-Encoding", "Cache-Control": KEPT}
                content = await run_in_threadpool(_compressed, path)
                await Response(content, headers=headers, media_type=TYPES[path.suffix])(scope, receive, send)
                return
        await self.app(scope, receive, send)


@cache
def _compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes(), LEVEL)


app = st.App(Path(__file__).with_name("main.py"), middleware=[Middleware(CompressedFrontEnd)])
