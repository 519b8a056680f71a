"""The segmentation page in a real browser: strategies are added, moved, solved, pinned, linked to and exported."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pandas as pd
import pytest

from tests.support.browser import ROOT, needs_chromium
from tests.support.reader import TAGS, Reader, card, inert, link

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

TEXT = "the cat sat on the mat, and the dog sat down on the other mat, and so on and on"


def notches(page: Any, row: int) -> int:
    """Boundaries that a row of tokens of the strip shows, in all lines that are drawn."""
    lines = page.locator(".strip .line").all()
    return sum(line.locator(".row:not(.line)").nth(row).locator(".notch").count() for line in lines)


def test_strategies_are_added_moved_solved_pinned_and_exported(
    reader: Reader, models: dict[str, Path], tmp_path: Path
) -> None:
    page = reader.open("segmentation", **link(models, TEXT, models="A", cut="entropy:threshold=2.5"))
    rows = page.locator(".strip .line").first.locator(".row:not(.line)")
    expect(rows).to_have_count(1)
    for count in (2, 3, 4):
        page.get_by_role("button", name="Add a strategy").click()
        expect(rows).to_have_count(count)
    reader.settle()

    reader.steady(card(page, "segments"))
    before = notches(page, 0)
    bar = page.locator(".st-key-chart_values .textpoint text").last
    expect(bar).to_have_text("3.61")  # bits
    slider = page.locator(".st-key-card_threshold input[type=range]")
    slider.focus()
    for _ in range(4):
        slider.press("PageUp")
    expect(bar).not_to_have_text("3.61")
    reader.until(lambda: notches(page, 0) < before)
    assert float(str(bar.text_content())) > 3.61

    line = page.locator(".st-key-strategy_0")
    line.get_by_label("Target length", exact=True).fill("2.2")
    line.get_by_label("Target length", exact=True).press("Enter")
    reader.settle()
    line.get_by_role("button", name="Solve").click()
    expect(card(page, "strategies")).to_contain_text("tokens a segment on model A")
    reader.settle()
    mean = re.search(r"([\d.]+) tokens a segment on model A", card(page, "strategies").inner_text())
    assert mean and abs(float(mean[1]) - 2.2) < 0.4

    dog = page.locator(".strip .cell").filter(has_text=re.compile("^·d$|^·dog$")).first
    reader.insist(dog.click, lambda: "at" in reader.query())
    expect(page.locator(".strip .cell.pinned")).to_have_count(4)
    expect(page.locator(".st-key-chart_values .shapelayer path")).to_have_count(1)  # the pin
    expect(page.locator(".card")).to_contain_text("why")
    at = int(reader.query()["at"])
    assert TEXT[at] in " dog"

    with zipfile.ZipFile(io.BytesIO(reader.download("values", "zip"))) as archive:
        archive.extractall(tmp_path)
    told = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert told["view"]["pinned"] == at and len(told["request"]["strategies"]) == 4
    first = pd.read_csv(tmp_path / "figure.csv")
    assert len(first) / first["starts_segment"].sum() == pytest.approx(float(mean[1]), abs=2e-3)
    (tmp_path / "figure.csv").unlink()
    python, *words = shlex.split(told["command"])
    assert python == "python" and words[:3] == ["-m", "analysis", "segmentation-figure"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, check=True, capture_output=True)
    pd.testing.assert_frame_equal(first, pd.read_csv(tmp_path / "figure.csv"), rtol=1e-5, atol=1e-6)

    shown = notches(page, 0)
    query = urlparse(page.url).query
    page.goto(f"{reader.server}/segmentation?{query}")
    reader.settle()
    expect(page.locator(".strip .cell.pinned")).to_have_count(4)
    reader.until(lambda: notches(page, 0) == shown)


def test_both_models_in_a_narrow_dark_window_with_a_hostile_text(
    server: str, browser: Any, models: dict[str, Path]
) -> None:
    reader = Reader(browser, server, viewport=(700, 1600), color_scheme="dark")
    page = reader.open("segmentation", **link(models, TAGS, cut=["entropy", "word"]))
    expect(page.locator(".strip .line").first.locator(".row:not(.line)")).to_have_count(4)
    page.locator(".strip .cell").nth(4).hover()
    expect(page.locator(".card .turned")).to_contain_text("A entropy")
    reader.settle()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 700
    for name in ("strategies", "cut_summary", "segments", "values", "statistics", "agreement", "lengths", "curves"):
        box = card(page, name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 700
    inert(page)
    reader.close()
