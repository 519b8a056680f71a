"""The depth page in a real browser: a token is pinned in the strip and marked in the heat map, the lens is turned."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import TAG, Reader, card, fits, link

expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = [pytest.mark.browser, needs_chromium]

TEXT = f"the cat sat on the mat, and the dog sat down on the other mat {TAG}"


def test_a_token_is_pinned_in_strip_and_heat_map_and_the_lens_turned(reader: Reader, models: dict[str, Path]) -> None:
    page = reader.open("depth", **link(models, TEXT, beside="word", open=("layers", "decided")))
    heat, panel = card(page, "heatmap"), page.locator(".inspector")
    expect(card(page, "strip")).to_contain_text("of 3 layers (")
    expect(heat.locator(".heatmaplayer image")).to_have_count(2)
    expect(heat.locator(".shapelayer path")).to_have_count(0)

    dog = page.locator(".strip .cell", has_text="dog").first
    reader.insist(dog.click, lambda: reader.query().get("at") == "32")
    expect(heat.locator(".shapelayer path")).to_have_count(2)  # in A's and in B's
    for words in ("decided at layer, of 3", "final entropy, bits", "after layer 3", "starts a segment"):
        expect(panel).to_contain_text(words)

    page.locator(".st-key-lens").get_by_text("change", exact=True).click()
    reader.until(lambda: "B decides later" in page.locator(".strip .legend").first.inner_text() and heat.count() == 1)
    expect(heat).to_contain_text("B − A in entropy")
    expect(heat.locator(".heatmaplayer image")).to_have_count(1)
    reader.narrow()
    fits(reader, "strip", "heatmap", "layers", "decided")
