"""The micro view in a real browser: a click chooses a segment, and a link names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import TAG, Reader, card, fits, inert

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [pytest.mark.browser, needs_chromium]


def test_a_click_chooses_a_segment_and_a_link_names_it(server: str, browser: Any, models: dict[str, Path]) -> None:
    reader = Reader(browser, f"{server}/attention")
    text = f"the cat sat on the mat and the dog sat on the cat {TAG}"
    page = reader.open(
        a=models["base"], b=models["sft"], source="Typed", text=text, view="Micro", open=("micro_summary", "weights")
    )
    expect(card(page, "micro_summary").get_by_test_id("stMetricValue")).to_have_count(4)
    expect(page.get_by_text("Untrained.", exact=True)).to_be_visible()
    expect(card(page, "micro_weights")).to_contain_text("mean over")
    strip = card(page, "micro_segments")
    reader.steady(strip)
    reader.insist(lambda: strip.locator(".cell").nth(3).click(), lambda: "segment" in reader.query())
    expect(card(page, "micro_weights")).to_contain_text(f"segment {reader.query()['segment']} of")
    before = int(reader.query()["segment"])
    page.get_by_role("button", name="Next", exact=True).click()
    reader.until(lambda: int(reader.query()["segment"]) == before + 1)
    expect(strip.locator(".cell.pinned").first).to_be_visible()
    expect(card(page, "micro_weights")).to_contain_text(f"segment {before + 1} of")
    reader.choose("Weights", "mean over the text")
    reader.until(lambda: "segment" not in reader.query())
    reader.narrow()
    fits(reader, "micro_summary", "micro_segments", "micro_weights")
    inert(page)
    reader.close()
