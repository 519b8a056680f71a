"""The attention page in a real browser: a head is picked, a map zoomed, a query pinned, two models are subtracted."""

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
PLACE = """(chart, [x, y, xa, ya]) => {
  const plot = chart.querySelector('.js-plotly-plot'), box = plot.getBoundingClientRect(), l = plot._fullLayout;
  return [box.x + l[xa]._offset + l[xa].d2p(x), box.y + l[ya]._offset + l[ya].d2p(y)];
}"""


def place(page: Any, figure: str, x: float, y: float) -> tuple[float, float]:
    """Where a point of a figure stands in the window."""
    chart = page.locator(f".st-key-chart_{figure}")
    chart.locator(".main-svg").first.wait_for()
    found: list[float] = chart.evaluate(PLACE, [x, y, "xaxis", "yaxis"])
    return found[0], found[1]


def click(reader: Reader, figure: str, x: float, y: float) -> None:
    """Point at a place of a figure, and click it once plotly knows it."""
    at = place(reader.page, figure, x, y)
    reader.page.mouse.move(at[0] - 3, at[1])
    reader.page.mouse.move(*at)
    expect(reader.page.locator(f".st-key-chart_{figure} .hoverlayer .hovertext").first).to_be_visible()
    reader.page.mouse.down()
    reader.page.mouse.up()
    reader.settle()


def test_a_head_is_picked_zoomed_pinned_and_linked(reader: Reader, models: dict[str, Path]) -> None:
    page = reader.open("attention", **link(models, TEXT, open=("large_map", "all_heads", "attention_summary")))
    expect(card(page, "attention_summary").get_by_test_id("stMetricValue")).to_have_count(4)
    expect(card(page, "maps")).to_contain_text("All layers and heads")

    reader.steady(card(page, "maps"))  # a click into a figure that is drawn anew is lost
    shown = card(page, "map")
    reader.insist(lambda: click(reader, "maps", 2, 1), lambda: "layer 2, head 1" in shown.inner_text())
    reader.until(lambda: reader.query().get("layer") == "2" and reader.query().get("head") == "1")
    page.locator(".st-key-shown").get_by_text("distance", exact=True).click()
    expect(card(page, "statistics")).to_contain_text("Distance of all layers and heads")

    hover = place(page, "map", 3, 7)
    page.mouse.move(hover[0] - 2, hover[1])
    page.mouse.move(*hover)
    label = page.locator(".st-key-chart_map .hoverlayer .hovertext")
    expect(label).to_contain_text(re.compile(r"from .* \(7\).*to .* \(3\).*weight 0?\.\d+|from.*to.*weight", re.S))
    reader.insist(lambda: click(reader, "map", 3, 7), lambda: "at" in reader.query())
    expect(card(page, "row")).to_contain_text("attends most to")
    expect(page.locator(".strip .cell.pinned").first).to_be_visible()

    box = page.get_by_label("Zoom size", exact=True)
    box.fill("5")
    box.press("Enter")
    reader.settle()
    page.get_by_role("button", name="Zoom to the pin").click()
    reader.until(lambda: reader.query().get("q", "0") != "0")
    expect(card(page, "map")).to_contain_text("Queries ")

    reader.narrow()
    expect(card(page, "map")).to_contain_text("layer 2, head 1")
    expect(page.locator(".strip .cell.pinned").first).to_be_visible()
    fits(reader, "attention_summary", "statistics", "map", "row")
