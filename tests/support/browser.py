"""What the browser tests share: where Chromium is, and a Streamlit server of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SETTINGS = ROOT / "app" / ".streamlit" / "config.toml"
TOKEN = "the-token-of-the-tests"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def chromium_path() -> str | None:
    """The system's Chromium or Chrome; None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(
    chromium_path() is None, reason="no Chromium on the PATH: install it to run the browser tests"
)


@contextlib.contextmanager
def streamlit_server(
    script: Path | str, *arguments: str, env: dict[str, str] | None = None, timeout: float = 90, cwd: Path = ROOT
) -> Iterator[str]:
    """Runs a Streamlit script on a free port and gives its address; ends the server afterwards.

    Args:
        script: the script, relative to the repository's root or absolute.
        arguments: more options of `streamlit run`, such as "--theme.base=dark".
        env: more environment variables.
        timeout: seconds until it must answer.
        cwd: the folder where it is started.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(ROOT / script)]
    command += [f"--server.port={port}", "--server.address=127.0.0.1", "--server.headless=true"]
    if not (ROOT / script).is_relative_to(SETTINGS.parents[1]):  # else Streamlit finds them beside the script
        command += _flags(tomllib.loads(SETTINGS.read_text("utf-8")))
    command += arguments
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MICRO_STEP_TOKEN": TOKEN} | (env or {})
    with tempfile.TemporaryFile("w+") as log:
        server = subprocess.Popen(command, cwd=cwd, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            _wait_until_healthy(f"http://127.0.0.1:{port}/_stcore/health", server, log.fileno(), timeout)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def let_in(browser: Any, url: str) -> Any:
    """What the link with the token gives a browser, a cookie and a key, for new contexts (`storage_state`)."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{url}/?access_token={TOKEN}")
    page.wait_for_url(lambda at: TOKEN not in at)  # the app may have written its settings into the address already
    state = context.storage_state()
    context.close()
    return state


def _flags(settings: dict[str, Any], section: str = "") -> list[str]:
    """The settings of the app as options of `streamlit run`, for a script of the tests."""
    flags = []
    for name, value in settings.items():
        if isinstance(value, dict):
            flags += _flags(value, f"{section}{name}.")
        else:
            flags += [f"--{section}{name}={each}" for each in (value if isinstance(value, list) else [value])]
    return flags


def _wait_until_healthy(url: str, server: subprocess.Popen[bytes], log: int, timeout: float) -> None:
    end = time.monotonic() + timeout
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    os.lseek(log, 0, os.SEEK_SET)
    said = os.read(log, 4000).decode(errors="replace")
    raise RuntimeError(f"streamlit did not answer within {timeout:.0f} s (exit {server.poll()}):\n{said}")
