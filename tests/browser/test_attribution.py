"""The attribution page in a real browser: a token is explained, another one pinned, units switched, figures remade."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import TAGS, Reader, card, inert, link, remade

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

CLOSE = {"rtol": 1e-3, "atol": 1e-5}  # of figures made again
TEXT = "the cat sat on the mat, and the dog sat down on the other mat"


def test_a_token_is_explained_another_pinned_summed_exported_and_remade(
    reader: Reader, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = reader.open("attribution", **link(models, TEXT, method="gradient × input"))
    summary = card(page, "attribution_summary")
    expect(summary.get_by_test_id("stMetricValue")).to_have_count(4)
    expect(card(page, "attribution")).to_contain_text("depends on")
    expect(page.locator(".strip .cell.pinned").first).to_be_visible()  # the token that is explained
    first = reader.steady(summary)

    dog = page.locator(".strip .cell", has_text="dog").first
    reader.insist(dog.click, lambda: reader.query().get("at") == "32")
    expect(card(page, "attribution")).to_contain_text("dog depends on")
    reader.until(lambda: summary.inner_text() != first)

    explained = reader.steady(summary)
    reader.choose("Sum over", "words")
    expect(card(page, "units")).to_contain_text("The strongest words")
    assert reader.steady(summary) == explained and "rows were read" in explained
    told = remade(reader, "attribution-figure", "attribution", tmp_path / "attribution", monkeypatch, **CLOSE)
    assert told["view"]["unit"] == "words" and told["request"]["quantity"] == "entropy"
    remade(reader, "attribution-figure", "units", tmp_path / "units", monkeypatch, **CLOSE)
    remade(reader, "attribution-figure", "curves", tmp_path / "curves", monkeypatch, **CLOSE)

    page.goto(page.url)
    reader.settle()
    expect(card(page, "attribution")).to_contain_text("dog depends on")
    expect(card(page, "units")).to_contain_text("The strongest words")


def test_two_models_in_a_narrow_dark_window_with_a_hostile_text(
    server: str, browser: Any, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(browser, server, viewport=(700, 2000), color_scheme="dark")
    more = {"quantity": "KL(A||B)", "method": "ablation"}
    page = reader.open("attribution", **link(models, TAGS, **more))
    expect(card(page, "curves")).to_contain_text("Is it faithful?")
    reader.settle()
    for name in ("attribution_summary", "attribution", "units", "curves"):
        box = card(page, name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 700
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 700
    told = remade(reader, "attribution-figure", "units", tmp_path / "units", monkeypatch, **CLOSE)
    assert set(told["models"]) == {"a", "b"}
    inert(page)
    reader.close()
