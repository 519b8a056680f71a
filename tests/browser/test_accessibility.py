"""Readers who use no mouse: the keyboard reaches everything."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import Reader, serious_faults, strip_text

expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = [pytest.mark.browser, needs_chromium]

PAIR = {"a": "tiny-base", "b": "tiny-sft"}
MOST_STOPS = 60  # presses of Tab to what is next on the way


def tab_to(page: Any, focused: str) -> None:
    """Press Tab until what a selector with `:focus` names has the focus."""
    for _ in range(MOST_STOPS):
        page.keyboard.press("Tab")
        if page.locator(focused).count():
            return
    raise AssertionError(f"Tab never reaches {focused}")


def test_the_keyboard_alone_reaches_text_run_lens_strip_export_and_film(reader: Reader) -> None:
    page = reader.open(**PAIR, lens="both")
    tab_to(page, ".st-key-run_text button:focus")
    tab_to(page, "textarea[aria-label=Text]:focus")
    page.keyboard.press("Control+a")
    page.keyboard.type("the cat sat on the mat")
    page.keyboard.press("Control+Enter")
    reader.until(lambda: strip_text(page) == "the cat sat on the mat")

    tab_to(page, "[aria-label=Lens] :focus")
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    reader.until(lambda: reader.query().get("lens") == "change")
    assert not serious_faults(page)

    tab_to(page, ".st-key-menu_strip button:focus")
    page.keyboard.press("Enter")
    expect(page.locator(".st-key-export_strip_csv button")).to_be_visible()
    assert not serious_faults(page)
    tab_to(page, ".st-key-export_strip_csv button:focus")
    page.keyboard.press("Escape")

    tab_to(page, ".scroller:focus")
    page.keyboard.press("ArrowRight")
    pinned = page.locator(".strip .cell[aria-selected=true]").first
    expect(pinned).to_be_visible()
    for key in ("n", "p"):
        before = pinned.bounding_box()
        page.keyboard.press(key)
        reader.until(lambda before=before: pinned.bounding_box() != before)

    page = reader.open("generation", **PAIR, film="Drafting wins")
    tab_to(page, ".film-text:focus")
    page.keyboard.press("Home")
    expect(page.locator(".film-label")).to_contain_text("macro step 1 of")
    tab_to(page, ".film-play:focus")
    tab_to(page, ".film input[aria-label=tau]:focus")
