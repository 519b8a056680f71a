"""The attribution page in a real browser: a token is explained, another one pinned, units switched."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import TAG, Reader, card, fits, link

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

TEXT = f"the cat sat on the mat, and the dog sat down on the other mat {TAG}"


def test_a_token_is_explained_another_pinned_summed_and_linked(reader: Reader, models: dict[str, Path]) -> None:
    folded = "attribution_summary", "units", "curves"
    page = reader.open("attribution", **link(models, TEXT, method="gradient × input", open=folded))
    summary = card(page, "attribution_summary")
    expect(summary.get_by_test_id("stMetricValue")).to_have_count(4)
    expect(card(page, "attribution")).to_contain_text("changes it most")
    expect(page.locator(".strip .cell.pinned").first).to_be_visible()  # the token that is explained
    first = reader.steady(summary)

    dog = page.locator(".strip .cell", has_text="dog").first
    reader.insist(dog.click, lambda: reader.query().get("at") == "32")
    expect(card(page, "attribution")).to_contain_text("dog")
    reader.until(lambda: summary.inner_text() != first)

    explained = reader.steady(summary)
    page.get_by_role("button", name="Options").click()
    reader.choose("Sum over", "words")
    page.keyboard.press("Escape")
    expect(page.locator(".st-key-open_units")).to_contain_text("The strongest words")
    assert reader.steady(summary) == explained and "the model read" in explained

    reader.narrow()
    expect(card(page, "attribution")).to_contain_text("dog")
    expect(page.locator(".st-key-open_units")).to_contain_text("The strongest words")
    fits(reader, "attribution_summary", "attribution", "units", "curves")
