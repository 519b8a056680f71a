"""Only who has the token comes in, and no other site, port or stolen cookie does."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.access.gate import FORM, HEADERS, KEY, PARAMETER, SafeHeaders, TokenGate
from app.access.settings import Settings, settings
from app.server import middleware
from model.errors import MicroStepError
from tests.support.browser import TOKEN, streamlit_server

HOST = "http://127.0.0.1:8501"
HTML = {"accept": "text/html"}


async def page(request: object) -> PlainTextResponse:
    return PlainTextResponse("inside")


async def stream(socket: WebSocket) -> None:
    await socket.accept("streamlit")
    await socket.send_json([socket.headers.get("sec-websocket-protocol"), socket.scope["subprotocols"]])


def visitor(token: str | None = TOKEN) -> TestClient:
    routes = [
        Route("/_stcore/health", page),
        WebSocketRoute("/_stcore/stream", stream),
        Route("/{rest:path}", page, methods=["GET", "PUT"]),
    ]
    gate = [Middleware(SafeHeaders), Middleware(TokenGate, token=token)]
    return TestClient(Starlette(routes=routes, middleware=gate), HOST, follow_redirects=False)


def let_in(client: TestClient) -> str:
    """The key that the browser keeps; the client keeps the cookie."""
    welcome = client.get(f"/?{PARAMETER}={TOKEN}").text
    return re.search(r"'micro_step_key',\"(\w+)\"", welcome)[1]  # type: ignore[index]


def connects(client: TestClient, *words: str, origin: str | None = HOST) -> bool:
    try:
        headers = {} if origin is None else {"origin": origin}
        with client.websocket_connect(
            "ws://127.0.0.1:8501/_stcore/stream", ["streamlit", "xsrf", *words], headers=headers
        ) as socket:
            assert socket.receive_json() == ["streamlit, xsrf", ["streamlit", "xsrf"]]  # nothing of the key
            return True
    except WebSocketDisconnect:
        return False


def test_without_the_token_nothing_is_told_but_how_to_come_in() -> None:
    client = visitor()
    for given in ("", f"?{PARAMETER}=", f"?{PARAMETER}={TOKEN}x", f"?{PARAMETER}=%ff"):
        answer = client.get(f"/depth{given}", headers=HTML)
        assert answer.status_code == 403 and FORM[-60:] in answer.text and "set-cookie" not in answer.headers
    client.cookies["micro_step_8501"] = "0" * 64
    assert client.get("/static/main.js").status_code == client.get("/_stcore/metrics").status_code == 403
    assert client.post("/", data={PARAMETER: "x" * 9000}).status_code == 403
    assert client.get("/_stcore/health").text == "inside"
    assert not connects(client) and not connects(client, KEY + "0" * 64)


def test_a_link_or_the_form_lets_in_and_the_page_of_the_link_follows() -> None:
    client = visitor()
    answer = client.get(f"/depth?a=tiny-sft&text=x%26%3Cb%3E&{PARAMETER}={TOKEN}")
    assert 'location.replace("/depth?a=tiny-sft&text=x%26%3Cb%3E")' in answer.text and TOKEN not in answer.text
    assert {"HttpOnly", "SameSite=lax"} <= set(answer.headers["set-cookie"].split("; "))
    assert client.get("/depth", headers=HTML).text == "inside"
    typed = visitor().post("/depth?a=tiny-sft", data={PARAMETER: f" {TOKEN}\n"})
    assert 'location.replace("/depth?a=tiny-sft")' in typed.text
    for elsewhere in ("//evil.test/x", "/%5Cevil.test", "//%5c/evil.test/%22%3Cscript%3E"):
        answer = client.get(f"{HOST}{elsewhere}?{PARAMETER}={TOKEN}")
        assert re.search(r'replace\("/[^/\\"<]', answer.text), answer.text


def test_a_stolen_cookie_another_port_and_another_site_cannot_connect() -> None:
    client = visitor()
    key = KEY + let_in(client)
    assert connects(client, key) and connects(client, key, origin=None)
    assert not connects(client)  # a program on another port that was sent the cookie
    assert not connects(client, KEY + client.cookies["micro_step_8501"])
    for origin in ("http://127.0.0.1:9999", "http://localhost:8501", "http://evil.test", "null", "http://["):
        assert not connects(client, key, origin=origin)
        assert client.put("/_stcore/upload_file/1", headers={"origin": origin}).status_code == 403
    client.cookies.clear()
    assert not connects(client, key)
    behind_a_proxy = visitor(token=None)
    assert connects(behind_a_proxy) and not connects(behind_a_proxy, origin="http://evil.test")


def test_every_answer_has_the_headers_and_the_form_runs_nothing_else() -> None:
    client = visitor()
    let_in(client)
    for answer in (client.get("/"), client.get("/_stcore/health"), client.put("/", headers={"origin": "null"})):
        assert all(answer.headers[name] == value for name, value in HEADERS.items())
    form = visitor().get('/"><script>alert(1)</script>?x="><b>', headers=HTML)
    assert "alert(" not in form.text and "<b>" not in form.text
    assert "default-src 'none'" in form.headers["content-security-policy"]


def test_the_operators_token_is_long_and_another_one_is_new_each_time() -> None:
    assert Settings.read({"MICRO_STEP_TOKEN": TOKEN}).token == TOKEN
    assert Settings.read({"MICRO_STEP_TOKEN": "off"}).token is None
    first, second = (Settings.read({}).token for _ in range(2))
    assert first != second and len(first or "") > 40
    with pytest.raises(MicroStepError, match="guess"):
        Settings.read({"MICRO_STEP_TOKEN": "password"})


@pytest.mark.slow
def test_streamlit_run_serves_this_machine_alone_and_asks_for_the_token(tmp_path: Path) -> None:
    with streamlit_server("app/main.py", cwd=tmp_path) as url:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{url}/")
        assert urllib.request.urlopen(f"{url}/?{PARAMETER}={TOKEN}").status == 200
        with pytest.raises(urllib.error.HTTPError, match="400"):
            urllib.request.urlopen(urllib.request.Request(url, headers={"Host": "evil.test"}))


def test_a_setting_that_cannot_be_read_is_one_line_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MICRO_STEP_SERVE", "0")
    monkeypatch.setenv("MICRO_STEP_MODELS", "lab=/nowhere/at/all")
    settings.cache_clear()
    with pytest.raises(SystemExit, match="there is no folder /nowhere/at/all"):
        middleware()
