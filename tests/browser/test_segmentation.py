"""The segmentation page in a real browser: strategies are added, moved, solved, pinned, linked to and exported."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import TAG, Reader, card, fits, link

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

TEXT = f"the cat sat on the mat, and the dog sat down on the other mat, and so on and on {TAG}"


def notches(page: Any, row: int) -> int:
    """Boundaries that a row of tokens of the strip shows, in all lines that are drawn."""
    lines = page.locator(".strip .line").all()
    return sum(line.locator(".row:not(.line)").nth(row).locator(".notch").count() for line in lines)


def test_strategies_are_added_moved_solved_pinned_and_linked(reader: Reader, models: dict[str, Path]) -> None:
    parts = ["strategies", "threshold", "statistics", "agreeing", "lengths", "curves"]
    page = reader.open("segmentation", **link(models, TEXT, models="A", cut="entropy:threshold=2.5", open=parts))
    rows = page.locator(".strip .line").first.locator(".row:not(.line)")
    expect(rows).to_have_count(1)
    for count in (2, 3, 4):
        page.get_by_role("button", name="Add a strategy").click()
        expect(rows).to_have_count(count)
        reader.settle()

    reader.steady(page.locator(".st-key-segmentation"))
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
    expect(card(page, "strategies")).to_contain_text("tokens per segment on model A")
    reader.settle()
    mean = re.search(r"([\d.]+) tokens per segment on model A", card(page, "strategies").inner_text())
    assert mean and abs(float(mean[1]) - 2.2) < 0.4

    dog = page.locator(".strip .cell").filter(has_text=re.compile("^·d$|^·dog$")).first
    reader.insist(dog.click, lambda: "at" in reader.query())
    expect(page.locator(".strip .cell.pinned")).to_have_count(4)
    expect(page.locator(".st-key-chart_values .shapelayer path")).to_have_count(1)  # the pin
    expect(page.locator(".inspector")).to_contain_text("why")
    at = int(reader.query()["at"])
    assert TEXT[at] in " dog"

    shown = notches(page, 0)
    reader.narrow()
    expect(page.locator(".strip .cell.pinned")).to_have_count(4)
    reader.until(lambda: notches(page, 0) == shown)
    cards = ("strategies", "values", "statistics", "agreement", "lengths", "curves")
    fits(reader, *cards)
