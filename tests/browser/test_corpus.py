"""The corpus page in a real browser: from a ranked document to its strip, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import Reader, card, strip_text

expect = pytest.importorskip("playwright.sync_api").expect

CUT_OFF = """() => [...document.querySelectorAll(
  '[data-testid=stMain] :is(button, input, .js-plotly-plot, [data-testid=stDataFrame])')].filter(
  e => e.getBoundingClientRect().right > innerWidth).map(e => e.outerHTML.slice(0, 200))"""

pytestmark = [pytest.mark.browser, needs_chromium]


@pytest.fixture
def reader(server: str, browser: Any) -> Iterator[Reader]:
    found = Reader(browser, f"{server}/corpus")
    yield found
    found.close()


def test_a_ranked_document_opens_on_its_strip_by_click_and_by_keyboard(reader: Reader) -> None:
    page = reader.open(open="column_means")
    expect(card(page, "ranking")).to_contain_text("40 documents")
    expect(card(page, "column_means").locator(".js-plotly-plot")).to_be_visible()
    page.set_viewport_size({"width": 400, "height": 2200})
    page.wait_for_timeout(500)
    assert page.evaluate(CUT_OFF) == []
    page.set_viewport_size({"width": 1300, "height": 2200})
    table = page.get_by_test_id("stDataFrame").first
    table.scroll_into_view_if_needed()
    table.click(position={"x": 18, "y": 38 + 35 * 3 + 17})  # the box of the fourth row
    reader.until(lambda: strip_text(page).startswith("Once upon a time, there was a shy turtle"))
    assert (reader.query()["a"], reader.query()["b"], reader.query()["chat"]) == ("tiny-base", "tiny-sft", "true")
    page.go_back()
    expect(card(page, "ranking")).to_contain_text("40 documents")
    reader.choose("Show", "falls")
    button = page.get_by_role("button", name="Open in Uncertainty")
    button.focus()
    page.keyboard.press("Enter")
    reader.until(lambda: strip_text(page).startswith("What is the capital of France?"))
    assert "Paris" in reader.query()["answer"]
