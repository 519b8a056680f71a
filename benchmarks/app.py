"""The first minute with the app, in a real browser: how long each page takes to show figures, and what it sends.

Every page is opened on a server that was just started, by a browser that knows nothing yet; then in a second tab; and
there once more, by a click, from another page of the app. Another checkout can be measured beside it, page by page in
turn, with the same Python and the same models.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.options import AppOptions
from benchmarks.timing import environment, in_rounds, ratios, spread
from model.errors import MicroStepError
from model.progress import Tell

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PAGES = ["uncertainty", "depth", "segmentation", "generation", "attention", "attribution", "corpus"]
PAGES += ["runs", "evaluation"]
PATIENCE = 180.0  # seconds
SIZE = {"width": 1440, "height": 1000}
FIGURES = ".line .cell, span.token, .js-plotly-plot .main-svg, [data-testid=stMetricValue], [data-testid=stDataFrame]"
DONE = ".stApp[data-test-script-state=notRunning] h1"
# The sum of all layout shifts that no click caused.
SHIFTS = """() => { window.shifts = 0; new PerformanceObserver(list => { for (const e of list.getEntries())
  if (!e.hadRecentInput) window.shifts += e.value; }).observe({type: "layout-shift", buffered: true}); }"""
COLOURS = "cells => cells.slice(0, 80).map(cell => getComputedStyle(cell).backgroundColor).join()"
MEASURES = ("start_s", "first_s", "first_mb", "shift", "second_s", "back_s", "score_s")


def measure(given: AppOptions, tell: Tell) -> dict[str, Any]:
    """A report: a row a page and checkout.

    Raises:
        MicroStepError: there is no browser, or a checkout does not start.
    """
    folders = {"here": ROOT} | ({"there": given.against.resolve()} if given.against is not None else {})
    rows: list[dict[str, Any]] = []
    with _browser() as browser:
        pages = given.page or PAGES
        for place, page in enumerate(pages):
            tell(f"opening {page}", place / len(pages))
            runs = {name: _Visits(browser, folder, page) for name, folder in folders.items()}
            found = in_rounds(runs, given.repeats)
            rows += [_row(page, name, found[name], found.get("there", [])) for name in folders]
    return {"measured": "the app's first minute", **environment("streamlit", "plotly", "torch"), "rows": rows}


def _row(page: str, name: str, found: list[dict[str, float]], others: list[dict[str, float]]) -> dict[str, Any]:
    """One line: medians with smallest and largest, and of this checkout the ratio to the other, round by round."""
    row: dict[str, Any] = {"page": page, "checkout": name}
    for key in MEASURES:
        values = [each[key] for each in found if key in each]
        row[key] = spread(values)
        if others and key in ("first_s", "second_s", "back_s", "first_mb"):
            base = [each[key] for each in others if key in each]
            row[f"{key}_ratio"] = ratios(values, base) if name == "here" and len(values) == len(base) else None
    return row


class _Visits:
    """Two visits of a page on a server of its own."""

    def __init__(self, browser: Any, folder: Path, page: str) -> None:
        self.browser, self.folder, self.page = browser, folder, page

    def __call__(self) -> dict[str, float]:
        """The figures; what the page does not show within the time that there is, is missing."""
        with serving(self.folder) as server:
            address, found = server.address, {"start_s": server.started}
            context = self.browser.new_context(viewport=SIZE)
            try:
                first = _Visit(context, address, self.page)
                found |= {"first_s": first.seconds, "first_mb": first.received / 1e6} if first.seconds else {}
                found["shift"] = first.settled()
                first.tab.close()
                second = _Visit(context, address, self.page)
                found |= {"second_s": second.seconds} if second.seconds else {}
                second.settled()
                found |= {"back_s": back} if second.seconds and (back := second.away_and_back(self.page)) else {}
                if self.page == "uncertainty":
                    second.settled()
                    found["score_s"] = second.other_score()
            finally:
                context.close()
            return found


class _Visit:
    """A new tab that opens the page and waits for its first figure."""

    def __init__(self, context: Any, address: str, page: str) -> None:
        self.received = 0.0  # bytes, as sent over the wire
        self.tab = context.new_page()
        self.tab.add_init_script(f"({SHIFTS})()")
        wire = context.new_cdp_session(self.tab)
        wire.send("Network.enable")
        wire.on("Network.dataReceived", lambda event: self._add(event["encodedDataLength"]))
        wire.on("Network.webSocketFrameReceived", lambda event: self._add(len(event["response"]["payloadData"]) * 0.75))
        start = time.perf_counter()
        self.tab.goto(f"{address}/{'' if page == 'uncertainty' else page}")
        self.seconds = self._seen(start)

    def _add(self, size: float) -> None:
        self.received += size

    def _seen(self, start: float) -> float | None:
        """Seconds until a figure is seen; None if the page is done without one."""
        while time.perf_counter() - start < PATIENCE:
            if self.tab.locator(FIGURES).first.is_visible():
                return time.perf_counter() - start
            if self.tab.locator(DONE).count() and time.perf_counter() - start > 60:
                break
            self.tab.wait_for_timeout(20)
        return None

    def away_and_back(self, page: str) -> float | None:
        """Seconds from a click on the page's name, on another page, until a figure of it is seen."""
        other = "runs" if page != "runs" else "uncertainty"
        self.tab.locator(_named(other)).click()
        self.tab.wait_for_url(f"**/{'' if other == 'uncertainty' else other}*")
        self.settled()
        start = time.perf_counter()
        self.tab.locator(_named(page)).click()
        self.tab.locator(_named(page, shown=True)).wait_for()
        return self._seen(start)

    def other_score(self) -> float:
        """Seconds from the choice of the second score until the strip has its colours."""
        cells = self.tab.locator(".line .cell")
        before, buttons = cells.evaluate_all(COLOURS), self.tab.get_by_role("radiogroup", name="Score", exact=True)
        if not buttons.count():
            self.tab.get_by_role("combobox", name="Score", exact=True).click()
        start = time.perf_counter()
        (buttons.get_by_role("radio") if buttons.count() else self.tab.get_by_role("option")).nth(1).click()
        while cells.evaluate_all(COLOURS) in ("", before) and time.perf_counter() - start < PATIENCE:
            self.tab.wait_for_timeout(10)
        return time.perf_counter() - start

    def settled(self) -> float:
        """Wait until the page has done, and return the sum of its layout shifts."""
        self.tab.locator(DONE).wait_for(timeout=PATIENCE * 1000)
        self.tab.wait_for_timeout(1500)
        return float(self.tab.evaluate("window.shifts"))


def _named(page: str, shown: bool = False) -> str:
    """A page's name in the navigation, or above the page that is shown."""
    title = page.capitalize()
    return f"h1:has-text('{title}')" if shown else f"[data-testid=stSidebarNavLink]:has-text('{title}')"


@contextlib.contextmanager
def _browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise MicroStepError("this benchmark needs playwright: pip install -r requirements-dev.txt") from None
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        raise MicroStepError("this benchmark needs Chromium or Chrome on the PATH")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class ServedApp:
    """The app of a checkout, in a process of its own."""

    address: str
    pid: int
    started: float  # seconds until it answered


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[ServedApp]:
    """Serve a checkout's app in this block."""
    scripts = [path for name in ("server", "main") if (path := folder / "app" / f"{name}.py").is_file()]
    script = next((path for path in scripts if "st.App(" in path.read_text("utf-8")), next(iter(scripts[-1:]), None))
    if script is None:
        raise MicroStepError(f"{folder} holds no checkout with an app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(script), f"--server.port={port}", "--server.headless=true"]
    env = os.environ | {"PYTHONPATH": str(folder), "MICRO_STEP_TOKEN": "off"}
    start = time.perf_counter()
    server = subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        while not _answers(f"{address}/_stcore/health"):
            if server.poll() is not None or time.perf_counter() - start > PATIENCE:
                raise MicroStepError(f"the app of {folder} did not start")
            time.sleep(0.02)
        yield ServedApp(address, server.pid, time.perf_counter() - start)
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
