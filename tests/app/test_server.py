"""The front end's files reach the browser compressed, nothing else changes on the way, and settings hold anywhere."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import pytest

from app import server
from app.server import FRONT_END, CompressedFrontEnd, address_meant
from tests.support.processes import run_coroutine

SCRIPT = next((FRONT_END / "static" / "js").glob("index.*.js"))


def answered(path, accepts="gzip, br", method="GET"):
    """Headers and body of the answer to a request; None where it is passed on."""
    sent = []

    async def passed_on(scope, receive, send):
        sent.append(None)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [(b"accept-encoding", accepts.encode())]}
    run_coroutine(CompressedFrontEnd(passed_on)(scope, None, send))
    if sent == [None]:
        return None
    start, body = sent
    return {name.decode(): value.decode() for name, value in start["headers"]}, body["body"]


def test_scripts_are_compressed_and_kept_by_the_browser():
    headers, body = answered(f"/static/js/{SCRIPT.name}")
    assert headers["content-encoding"] == "gzip" and "javascript" in headers["content-type"]
    assert "immutable" in headers["cache-control"] and headers["vary"] == "Accept-Encoding"
    assert gzip.decompress(body) == SCRIPT.read_bytes() and len(body) < SCRIPT.stat().st_size / 2


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        (f"/static/js/{SCRIPT.name}", {"accepts": "br"}),
        (f"/static/js/{SCRIPT.name}", {"method": "POST"}),
        ("/static/js/../../index.html", {}),
        ("/static/js//etc/passwd", {}),
        ("/", {}),
        ("/_stcore/health", {}),
    ],
)
def test_all_else_is_passed_on(path, asked):
    assert answered(path, **asked) is None


@pytest.mark.parametrize(
    ("path", "to"),
    [
        ("/uncertainty", "/"),
        ("/Attention", "/attention"),
        ("/segmentaton/", "/segmentation"),
        ("/benchmarks", "/evaluation"),
        ("/", None),
        ("/attention", None),
        ("/nothing", None),
    ],
)
def test_an_address_that_is_almost_that_of_a_page_leads_to_it(path, to):
    assert address_meant(path) == to


def test_the_settings_are_the_same_from_any_folder(tmp_path):
    """Started elsewhere, the server once listened on every interface, since Streamlit found no settings."""
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "config.toml").write_text('[server]\naddress = "0.0.0.0"\n')
    script = str(Path(server.__file__).with_name("main.py"))
    code = f"from streamlit import config as c; c._main_script_path = {str(script)!r}; c.get_config_options()"
    code += "; print(c.get_option('server.address'), c.get_option('server.allowedHosts'))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLIT_")}
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert said.stdout.strip() == "127.0.0.1 ['localhost', '127.0.0.1']", said.stderr
