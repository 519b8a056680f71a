"""The bar above the page in a real browser: what is typed waits for Run, and each submission is one step of Back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import Reader, strip_text

expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = [pytest.mark.browser, needs_chromium]


def test_text_is_run_by_keyboard_an_example_by_a_click_and_back_undoes_one_submission_at_a_time(
    reader: Reader, models: dict[str, Path], server: str, browser: Any
) -> None:
    page = reader.open(a=models["base"], b=models["sft"], text="the cat sat", chat="false")
    box = page.get_by_role("textbox", name="Text", exact=True)
    reader.until(lambda: strip_text(page) == "the cat sat")
    box.fill("on the mat")
    page.get_by_text("nats", exact=True).click()  # another run of the page
    reader.settle()
    assert strip_text(page) == "the cat sat" and box.input_value() == "on the mat"
    box.press("Control+Enter")
    reader.until(lambda: strip_text(page) == "on the mat" and reader.query().get("text") == "on the mat")

    box.fill("half typed")
    page.get_by_text("Word problem", exact=True).click()
    reader.until(lambda: reader.query().get("example") == "bakery" and "bakery" in box.input_value().lower())
    expect(page.get_by_role("switch", name="Chat")).to_be_checked()
    assert "text" not in reader.query()

    page.go_back()
    reader.until(lambda: strip_text(page) == "on the mat" and box.input_value() == "on the mat")
    expect(page.get_by_role("switch", name="Chat")).not_to_be_checked()
    page.go_back()
    reader.until(lambda: strip_text(page) == "the cat sat" and box.input_value() == "the cat sat")
    page.go_forward()
    reader.until(lambda: strip_text(page) == "on the mat")

    other = Reader(browser, server)
    opened = other.open(**reader.query())
    other.until(lambda: strip_text(opened) == "on the mat")
    expect(opened.get_by_role("combobox", name="Model A")).to_have_value(str(models["base"]))
    other.close()


def test_an_answer_survives_runs_of_the_page_in_which_more_was_closed(reader: Reader, models: dict[str, Path]) -> None:
    page = reader.open(a=models["base"], b=models["sft"], text="the cat", answer="sat", system="be brief", chat="true")
    more, answer = page.get_by_role("button", name="More"), page.get_by_label("Assistant's answer")
    page.get_by_text("nats", exact=True).click()  # another run of the page, with More closed
    reader.settle()
    more.click()
    expect(answer).to_have_value("sat")
    expect(page.get_by_label("System message")).to_have_value("be brief")
    answer.fill("on the mat")
    page.locator("h1").click()  # closes More
    page.get_by_text("bits", exact=True).click()
    reader.settle()
    more.click()
    expect(answer).to_have_value("on the mat")
    page.get_by_role("button", name="Run").click()
    reader.until(lambda: reader.query().get("answer") == "on the mat")
    assert reader.query()["system"] == "be brief"
