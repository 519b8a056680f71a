"""How the app is served: to those with its token alone, with what a browser loads first made small and complete.

The front end's files are compressed, which quarters what a browser loads. The first page has the styles of the layout
in it, which Streamlit would send after all else: what stands on the page would move. The app's modules are imported
while the server starts, so that the first visitor does not wait for them.
"""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Thread
from urllib.parse import quote

import streamlit as st
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from streamlit import config

from app.access.gate import CONNECTION, PARAMETER, SafeHeaders, TokenGate
from app.access.settings import LOOPBACK, SERVE, settings
from model.errors import MicroStepError

LAYOUT = Path(__file__).with_name("layout.css").read_text("utf-8")
FRONT_END = Path(st.__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css"}
KEPT = "public, immutable, max-age=31536000"  # as Streamlit sends them: a file's name changes with its content
LEVEL = 6  # of gzip; the largest file takes 0.2 s, once
# Streamlit draws the sidebar a moment after the page, which would push all else aside.
_BEFORE = """
.stMainBlockContainer { width: 100%; }
@media (min-width: 769px) {
  .stAppViewContainer:not(:has(> [data-testid="stSidebar"])) > :last-child { margin-left: 300px; }
}
"""
# Parts of the front end that each page needs at once. Streamlit would ask for each when it is to be drawn.
_PARTS = (
    "Html", "Selectbox", "Checkbox", "TextArea", "ButtonGroup", "NumberInput", "MenuButton", "Metric", "BidiComponent",
)  # fmt: skip
_SCRIPTS = FRONT_END / "static" / "js"
_IMPORTS = "".join(f"import './static/js/{path.name}';" for part in _PARTS for path in _SCRIPTS.glob(f"{part}.*.js"))
ONE_STEP = Path(__file__).with_name("one_step.js").read_text("utf-8")
_SCRIPT = f"<script>{ONE_STEP}</script><script type='module'>{_IMPORTS}</script>"
HEAD = f"<style>{LAYOUT}{_BEFORE}</style>{_SCRIPT}</head>".encode()
WITH_KEY = f"<script>{CONNECTION}</script>".encode() + HEAD
PAGES = Path(__file__).resolve().parents[1] / "pages"
ADDRESSES = {file.stem: f"/{file.stem}" for file in PAGES.glob("[!_]*.py")}
ADDRESSES |= {"uncertainty": "/", "benchmarks": "/evaluation"}
ALMOST = 0.8  # how alike two names are, 0 to 1, that mean the same page
OF_THE_FILE = ("content-length", "content-encoding", "etag", "last-modified")  # headers


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


def address_meant(path: str) -> str | None:
    """Where the page is that an address means: its other name, or a name that is almost right; None if it is there."""
    name = path.strip("/").lower()
    near = get_close_matches(name, ADDRESSES, 1, ALMOST)
    to = ADDRESSES[near[0]] if near else None
    return None if to is None or path.rstrip("/") == to.rstrip("/") else to


class FirstPaint(BaseHTTPMiddleware):
    """Puts the styles into every page, and opens pages under addresses that are almost theirs; passes all else on."""

    def __init__(self, app: ASGIApp, with_key: bool = False) -> None:
        super().__init__(app)
        self.head = WITH_KEY if with_key else HEAD

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        """Answer a request."""
        answer = await call_next(request)
        if not answer.headers.get("content-type", "").startswith("text/html"):
            return answer
        if (to := address_meant(request.url.path)) is not None:
            return RedirectResponse(f"{to}?{request.url.query}" if request.url.query else to)
        page = b"".join([part async for part in answer.body_iterator])  # type: ignore[attr-defined]
        if answer.headers.get("content-encoding") == "gzip":  # as Streamlit sends every page but the first
            page = gzip.decompress(page)
        headers = {name: value for name, value in answer.headers.items() if name not in OF_THE_FILE}
        return Response(page.replace(b"</head>", self.head, 1), answer.status_code, headers)


def import_ahead() -> None:
    """Import what the first page needs. An import that fails is told to the visitor, whose run repeats it."""
    folder = str(Path(__file__).resolve().parents[1])
    if folder not in sys.path:
        sys.path.insert(0, folder)
    import_module("app.uncertainty.cards")
    import_module("app.workspace_bar")


def middleware() -> list[Middleware]:
    """What stands between a browser and the app, from the outside in."""
    if config.get_option("server.address") not in LOOPBACK:  # others can reach it, so it is theirs
        os.environ.setdefault(SERVE.variable, "1")
    try:
        token = settings().token
    except MicroStepError as error:
        sys.exit(f"micro_step: {error}")
    Thread(target=import_ahead, daemon=True).start()
    return [
        Middleware(SafeHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=config.get_option("server.allowedHosts"), www_redirect=False),
        Middleware(TokenGate, token=token),
        Middleware(CompressedFrontEnd),
        Middleware(FirstPaint, with_key=token is not None),
    ]


@asynccontextmanager
async def started(app: st.App) -> AsyncIterator[None]:
    """While the app is served; says first where."""
    print(f"\n  Open micro_step in a browser:\n\n  {link()}\n", flush=True)
    yield


def link() -> str:
    """The address of the first page, with the token."""
    hosts = [name for name in config.get_option("server.allowedHosts") if name not in LOOPBACK and "*" not in name]
    host = hosts[0] if hosts and config.get_option("server.address") not in LOOPBACK else LOOPBACK[0]
    scheme = "https" if config.get_option("server.sslCertFile") else "http"
    token = settings().token
    query = "" if token is None else f"?{PARAMETER}={quote(token)}"
    return f"{scheme}://{host}:{config.get_option('server.port')}/{query}"
