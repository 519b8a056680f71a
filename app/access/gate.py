"""Lets in only who has the token of this server, and lets no other site or local port use what a visitor's browser has.

The link that the server prints holds the token. The first visit exchanges it for two things derived from it: a cookie,
which each request must bring, and a key, which the page keeps in the browser's storage and sends when it connects. A
cookie goes to every port of a host, so a program of another account could be sent it. Only pages of this very port can
read the key, and all that a session does goes through its connection.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64encode
from hashlib import sha256
from html import escape
from pathlib import Path
from secrets import token_bytes
from urllib.parse import parse_qs, parse_qsl, quote, unquote, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PARAMETER = "access_token"  # of a link
KEY = "micro-step-key."  # before the key, among the subprotocols of a connection
OPEN = "/_stcore/health"  # says only that the server runs
LONGEST_FORM = 4096  # bytes
SLASHES = "/\\"
KEPT = 30 * 24 * 3600  # seconds that a browser keeps the cookie; a new token ends it earlier
FORM = Path(__file__).with_name("token.html").read_text("utf-8")
# A page's connection brings the key. Without a key, the page asks for the token.
CONNECTION = Path(__file__).with_name("connection.js").read_text("utf-8")
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "frame-ancestors 'self'; base-uri 'self'; form-action 'self'; object-src 'none'",
}


def derived(token: str, use: str) -> str:
    """A secret for one use, which tells nothing of the token."""
    return hmac.new(token.encode(), use.encode(), sha256).hexdigest()


class SafeHeaders:
    """Adds to every answer the headers that keep a browser from misusing it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, with_headers)


class TokenGate:
    """Answers who has no token with a form that asks for it; refuses connections from other origins."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token  # None: a proxy in front says who may come in
        self.cookie, self.key = (derived(token, use) for use in ("cookie", "key")) if token else ("", "")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan" or scope["path"] == OPEN:
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._connect(scope, receive, send)
        else:
            answer = await self._answer(Request(scope, receive))
            await (answer or self.app)(scope, receive, send)

    async def _connect(self, scope: Scope, receive: Receive, send: Send) -> None:
        words: list[str] = scope.get("subprotocols", [])
        keys = [word.removeprefix(KEY) for word in words if word.startswith(KEY)]
        if self._own_origin(scope) and (not self.token or (self._cookie(scope) and keys and same(keys[0], self.key))):
            await self.app(_without_key(scope), receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    async def _answer(self, request: Request) -> Response | None:
        """The answer of the gate; None where the app is to answer."""
        if request.method not in ("GET", "HEAD") and not self._own_origin(request.scope):
            return PlainTextResponse("This request came from another site.", 403)
        if not self.token:
            return None
        given = request.query_params.get(PARAMETER)
        if given is not None and same(given, self.token):
            return self._welcome(request)
        if request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            typed = parse_qs((await _form(request)).decode("utf-8", "replace")).get(PARAMETER, [""])[-1]
            return (
                self._welcome(request)
                if same(typed.strip(), self.token)
                else _asking(request, "This is the wrong token.")
            )
        if given is None and self._cookie(request.scope):
            return None
        if "text/html" not in request.headers.get("accept", ""):
            return PlainTextResponse("Open the link with the token that this server printed.", 403)
        return _asking(request, "This link holds the wrong token." if given else "")

    def _welcome(self, request: Request) -> Response:
        """Give the browser its cookie and key, and send it to the page that the link names."""
        rest = [(name, value) for name, value in parse_qsl(request.url.query, True) if name != PARAMETER]
        path = quote(unquote(request.url.path).lstrip(SLASHES))  # after two slashes, a host would stand
        to = f"/{path}?{urlencode(rest)}" if rest else f"/{path}"
        page = f"localStorage.setItem('micro_step_key',{json.dumps(self.key)});location.replace({_in_script(to)})"
        answer = _page(f"<script>{page}</script><noscript>micro_step needs JavaScript.</noscript>")
        secure = request.url.scheme == "https"
        answer.set_cookie(_name(request), self.cookie, KEPT, httponly=True, samesite="lax", secure=secure)
        return answer

    def _cookie(self, scope: Scope) -> bool:
        connection = HTTPConnection(scope)
        return same(connection.cookies.get(_name(connection), ""), self.cookie)

    @staticmethod
    def _own_origin(scope: Scope) -> bool:
        """Whether a request comes from a page of this very host and port, or from no page."""
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        try:
            return origin is None or urlsplit(origin).netloc == headers.get("host")
        except ValueError:  # it is no address
            return False


def same(given: str, secret: str) -> bool:
    """Whether two secrets are equal, in a time that does not tell where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


def _name(connection: HTTPConnection) -> str:
    """Of the cookie: a browser sends all cookies of a host to all its ports."""
    return f"micro_step_{connection.url.port or 'access'}"


def _without_key(scope: Scope) -> Scope:
    """The connection as the app knows it."""
    words = [word for word in scope.get("subprotocols", []) if not word.startswith(KEY)]
    header = b"sec-websocket-protocol"
    headers = [(name, value) for name, value in scope["headers"] if name != header]
    return {**scope, "subprotocols": words, "headers": [*headers, (header, ", ".join(words).encode())]}


async def _form(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_FORM:
            return b""
    return body


def _asking(request: Request, problem: str) -> Response:
    """The page that asks for the token."""
    said = f'<p role="alert">{escape(problem)}</p>' if problem else ""
    rest = urlencode([(name, value) for name, value in parse_qsl(request.url.query, True) if name != PARAMETER])
    return _page(FORM.replace("<!--problem-->", said).replace("ACTION", escape(f"?{rest}")), 403)


def _in_script(text: str) -> str:
    """A text as JavaScript, in an HTML page."""
    return json.dumps(text).replace("<", "\\u003c")


def _page(body: str, status: int = 200) -> Response:
    """A page of which only the scripts and styles in it run."""
    nonce = b64encode(token_bytes(16)).decode()
    page = body.replace("<script>", f'<script nonce="{nonce}">').replace("<style>", f'<style nonce="{nonce}">')
    policy = f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; form-action 'self'"
    headers = {"Content-Security-Policy": f"{policy}; frame-ancestors 'none'; base-uri 'none'"}
    return HTMLResponse(page, status, {**headers, "Cache-Control": "no-store"})
