"""The strip in a real browser: alignment, inspector, lens, pin, keys, wide and right-to-left text, safety, speed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

from tests.support.browser import needs_chromium

ROOT = Path(__file__).parents[2]

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

Open = Callable[..., Any]

# The fixed-width face has loaded, and the strip has been laid on it.
SETTLED = """async () => {
  await document.fonts.ready;
  for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame);
}"""


# How many bodies and commands there are after an old mount, a new one of the same, the end of the old, and of the new.
WIRES = """async ([body, pin]) => {
  const counts = [];
  for (const [wire, data, kept] of [
    [body, new Uint8Array(20), "microStepBodies"], [pin, {strip: "s", at: 1, turn: 1}, "microStepPins"],
  ]) {
    const mount = (await import(URL.createObjectURL(new Blob([wire], {type: "text/javascript"})))).default;
    const count = [];
    const tell = () => count.push(globalThis[kept].size);
    const endOld = mount({parentElement: {}, data});
    tell();
    const endNew = mount({parentElement: {}, data});
    tell();
    for (const end of [endOld, endNew]) {
      end();
      tell();
    }
    counts.push(count);
  }
  return counts;
}"""


@pytest.fixture
def show(server: str, browser: Any) -> Iterator[Open]:
    """Opens a case of strip_page.py; afterwards no error may have come up, and no other host been asked."""
    pages, errors, asked = [], [], set()

    def opened(case: str) -> Any:
        page = browser.contexts[0].new_page()
        page.set_viewport_size({"width": 1120, "height": 900})
        pages.append(page)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: (errors.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: asked.add(urlparse(request.url).hostname))
        page.goto(f"{server}/?case={case}&embed=true")
        page.get_by_text("told:").wait_for()
        page.locator(".strip .legend .group").first.wait_for()
        page.evaluate(SETTLED)
        return page

    yield opened
    for page in pages:
        page.close()
    assert errors == []
    assert asked <= {"127.0.0.1", None}  # None: made in the page


def row(page: Any, line: int, index: int) -> Any:
    return page.locator(".line").nth(line).locator(".row").nth(index)


def token(page: Any, text: str, line: int = 0, index: int = 0) -> Any:
    return row(page, line, index).locator(".cell").filter(has_text=re.compile(f"^{re.escape(text)}$")).first


def pinned_text(page: Any) -> list[str]:
    return page.locator(".cell.pinned").all_text_contents()


# Where each character of a row stands, by its own Range.
CHARACTERS = """track => [...track.querySelectorAll('.cell')].flatMap(cell => {
  const walker = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), found = [];
  for (let node; (node = walker.nextNode()); )
    for (let i = 0; i < node.data.length; i++) {
      const range = document.createRange();
      range.setStart(node, i); range.setEnd(node, i + 1);
      const box = node.parentElement.matches('i') ? node.parentElement : range;
      found.push([node.data[i], box.getBoundingClientRect().left, box.getBoundingClientRect().width]);
    }
  return found;
})"""


def aligned(page: Any) -> None:
    """Each character stands at the same place in both rows."""
    for line in range(page.locator(".line").count()):
        a, b = (row(page, line, i).evaluate(CHARACTERS) for i in (0, 1))
        assert [c for c, *_ in a] == [c for c, *_ in b]
        assert max(abs(x[1] - y[1]) for x, y in zip(a, b, strict=True)) < 0.5


def contrast(a: str, b: str) -> float:
    def luminance(css: str) -> float:
        parts = [int(x) / 255 for x in re.findall(r"\d+", css)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def readable(page: Any) -> None:
    """The ink has contrast on every coloured cell, in the light theme and, after a change, in the dark one."""
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        expect(page.locator(".strip")).to_have_css("color-scheme", theme)
        colours = page.locator(".cell[style*=background-color]").evaluate_all(
            "cells => cells.map(c => [getComputedStyle(c).backgroundColor, getComputedStyle(c).color])"
        )
        assert len(colours) > 30
        assert min(contrast(fill, ink) for fill, ink in colours) >= 4.5
        fills = [contrast(fill, "rgb(0, 0, 0)") for fill, _ in colours]
        assert (max(fills) > 15) == (theme == "light")  # the scale starts at the theme's own ground


def test_two_rows_are_aligned_readable_and_flow_anew_when_the_window_narrows(show: Open) -> None:
    page = show("pair")
    aligned(page)
    missing = page.locator(".cell.missing")  # hatched, and never coloured
    expect(missing).to_have_count(2)
    style = missing.first.evaluate("e => [getComputedStyle(e).backgroundColor, getComputedStyle(e).backgroundImage]")
    assert style[0] == "rgba(0, 0, 0, 0)"
    assert "gradient" in style[1]
    readable(page)
    lines = page.locator(".line").count()
    page.set_viewport_size({"width": 500, "height": 900})
    expect(page.locator(".line").nth(lines)).to_be_attached()
    for i in range(page.locator(".line").count()):
        box = row(page, i, 0).locator(".cell").last.bounding_box()
        assert box["x"] + box["width"] <= 500
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 500


def test_the_inspector_shows_both_rows_beside_the_text_and_never_over_it(show: Open) -> None:
    page = show("pair")
    panel = page.locator(".inspector")
    expect(panel).to_contain_text("Point at the text")
    for width, beside in ((1400, True), (700, False), (360, False)):
        page.set_viewport_size({"width": width, "height": 900})
        page.evaluate(SETTLED)
        before = panel.bounding_box()
        token(page, "·sold").hover()
        expect(panel.locator("tr").first).to_have_text("AB")
        expect(panel).to_contain_text("entropy, bits")
        expect(panel.locator(".guess")).to_have_count(10)
        expect(panel.locator("path.lead")).to_have_count(10)  # both tokens start here, so their lists are joined
        box, text = panel.bounding_box(), page.locator(".scroller").bounding_box()
        assert box == before  # nothing moves
        assert box["x"] >= text["x"] + text["width"] if beside else box["y"] >= text["y"] + text["height"]
        assert box["x"] + box["width"] <= width
        page.mouse.move(2, 2)
        expect(panel).to_contain_text("Point at the text")


def test_a_lens_shows_one_row_a_map_and_leads_from_change_to_change(show: Open) -> None:
    page = show("lens")
    expect(page.locator(".line").first.locator(".row")).to_have_count(1)
    expect(page.locator(".turn")).to_have_text(["user", "assistant"])
    expect(page.locator(".cell.missing").first).to_be_visible()
    readable(page)
    page.emulate_media(color_scheme="light")
    scroller = page.locator(".scroller")
    scroller.focus()
    places = []
    for _ in range(5):
        page.keyboard.press("n")
        places.append(page.locator(".live").inner_text())
        expect(page.locator(".cell.pinned").first).to_be_in_viewport()
    assert len(set(places)) == 5
    page.keyboard.press("n")  # after the last comes the first
    assert page.locator(".live").inner_text() == places[0]
    page.keyboard.press("p")
    assert page.locator(".live").inner_text() == places[-1]
    page.get_by_label("Previous change (key p)").click()
    assert page.locator(".live").inner_text() == places[-2]
    expect(page.locator(".inspector tr").first).to_have_text("ABB−A")
    box = page.locator(".map").bounding_box()
    page.mouse.click(box["x"] + 0.98 * box["width"], box["y"] + 10)
    page.evaluate(SETTLED)
    assert scroller.evaluate("e => e.scrollTop") > 0
    expect(page.get_by_text("told: [")).to_contain_text(re.compile(r"\d"))
    page.locator("button.guess").first.click()  # an alternative, to be written into the text
    expect(page.get_by_text(re.compile(r"TokenChoice\(row='A', token=\d+, rank=\d\)"))).to_be_visible()


def test_click_pins_keys_step_and_escape_unpins(show: Open) -> None:
    page = show("pair")
    token(page, "·clips").click()
    expect(page.get_by_text("pinned: 14")).to_be_visible()  # the character under the pointer, in the middle
    assert pinned_text(page) == ["·clips", "·clip"]
    page.mouse.move(2, 2)
    expect(page.locator(".inspector")).to_contain_text("pinned")
    expect(page.locator(".live")).to_contain_text("Pinned, character 14. A “·clips”, entropy, bits")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("pinned: 18")).to_be_visible()
    assert pinned_text(page) == ["·to", "·to"]
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("pinned: 12")).to_be_visible()
    page.keyboard.press("End")
    page.keyboard.press("ArrowDown")
    expect(page.get_by_text(re.compile("pinned: 1[0-9][0-9]$"))).to_be_visible()
    page.keyboard.press("Control+Home")
    expect(page.get_by_text("pinned: 0")).to_be_visible()
    assert page.locator(".scroller").get_attribute("aria-activedescendant") == "pinned"
    page.keyboard.press("Escape")
    expect(page.get_by_text("pinned: None")).to_be_visible()
    expect(page.locator(".inspector")).to_contain_text("Point at the text")
    expect(page.get_by_text("told: [14, 18, 12,")).to_be_visible()
    token(page, "Nata", index=1).click()  # the arrows follow the row that was clicked
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("pinned: 4")).to_be_visible()
    assert pinned_text(page) == ["Natalia", "lia"]


def test_python_pins_and_nothing_bounces(show: Open) -> None:
    page = show("large")
    ask = page.get_by_label("pin from Python")
    ask.fill("30000")
    ask.press("Enter")
    expect(page.get_by_text("pinned: 30000")).to_be_visible()
    expect(page.locator(".cell.pinned").first).to_be_in_viewport()
    token_at_top = page.locator(".scroller").evaluate("e => e.scrollTop")
    assert token_at_top > 0
    page.locator(".scroller").press("ArrowRight")
    expect(page.get_by_text("pinned: 30000")).to_be_hidden()
    moved = page.get_by_text(re.compile(r"^pinned: \d+")).inner_text()
    page.wait_for_timeout(700)
    assert page.get_by_text(re.compile(r"^pinned: \d+")).inner_text() == moved  # what Python asked before is past
    ask.fill("10")
    ask.press("Enter")
    expect(page.get_by_text("pinned: 10", exact=True)).to_be_visible()
    expect(page.locator(".cell.pinned").first).to_be_in_viewport()
    expect(page.get_by_text(re.compile(r"^told: \[\d+\]$"))).to_be_visible()  # only the reader's own move


def test_a_link_to_a_pin_opens_there_and_a_pin_sends_the_strip_no_second_time(show: Open) -> None:
    page = show("large&pin=20000")
    expect(page.locator(".cell.pinned").first).to_be_in_viewport()
    expect(page.locator(".inspector")).to_contain_text("pinned")
    expect(page.get_by_text("pinned: 20000")).to_be_visible()
    received: list[int] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: received.append(len(frame))))
    page.reload()
    page.locator(".strip .cell").first.wait_for()
    page.get_by_text("told:").wait_for()
    first = max(received)
    received.clear()
    page.locator(".scroller").press("ArrowRight")
    expect(page.get_by_text("told: [")).to_contain_text(re.compile(r"\d"))
    assert first > 500_000
    assert sum(received) < 50_000


def test_a_body_and_a_pin_outlive_the_mount_that_a_new_one_replaces(browser: Any) -> None:
    """Streamlit may mount anew before it ends the old mount: the strip then found no text, and stayed empty."""
    page = browser.contexts[0].new_page()
    wires = [(ROOT / f"app/token_strip/{name}.js").read_text() for name in ("body", "pin")]
    assert page.evaluate(WIRES, wires) == [[1, 1, 1, 0], [1, 1, 1, 0]]
    page.close()


def test_wide_characters_keep_their_columns(show: Open) -> None:
    page = show("wide")
    aligned(page)
    column = page.locator(".probe").evaluate("e => e.getBoundingClientRect().width / e.textContent.length")
    chinese = [c for c in row(page, 0, 0).evaluate(CHARACTERS) if "\u4e00" <= c[0] <= "\u9fff"]
    assert len(chinese) > 15
    for _, _, width in chinese:
        assert width == pytest.approx(2 * column, abs=0.1)
    second = page.locator(".line").filter(has_text="U+200B")
    expect(second.locator(".row").first).to_contain_text("U+200B")
    family = second.locator(".row").first.locator("i", has_text="\U0001f468\u200d\U0001f469\u200d\U0001f467")
    expect(family).to_have_count(1)  # the joiners stay inside of one character
    boxes = row(page, 1, 0).evaluate(
        "r => [...r.querySelectorAll('i')].map(i => [i.scrollWidth, i.getBoundingClientRect().width])"
    )
    assert all(inner <= outer + 1.5 for inner, outer in boxes)


def test_a_right_to_left_line_is_not_aligned_and_says_so(show: Open) -> None:
    page = show("rtl")
    expect(page.locator(".line.free")).to_have_count(2)
    expect(page.locator(".line.free .note").first).to_contain_text("right-to-left")
    expect(page.locator(".line:not(.free)")).to_have_count(2)
    words = row(page, 1, 0).locator(".cell")
    first, second = words.nth(0).bounding_box(), words.nth(1).bounding_box()
    assert first["x"] > second["x"]  # the first word stands at the right
    words.nth(1).click()
    expect(page.get_by_text("pinned: 35")).to_be_visible()
    assert len(pinned_text(page)) == 2


def test_a_split_character_is_drawn_once_and_its_tokens_are_listed(show: Open) -> None:
    page = show("split")
    emoji = page.locator(".cell.split")
    expect(emoji).to_have_count(1)
    expect(emoji).to_have_text("\U0001f600")
    emoji.hover()
    panel = page.locator(".inspector")
    expect(panel.locator("tr").first).to_have_text("AB 1/4B 2/4B 3/4B 4/4")
    expect(panel).to_contain_text("<0xF0>")
    expect(panel).to_contain_text("missing")
    emoji.click()
    page.keyboard.press("ArrowRight")  # past all four, in B
    expect(page.get_by_text("pinned: 7")).to_be_visible()
    expect(page.locator(".legend")).to_contain_text("one character, several tokens")


def test_hostile_tokens_are_only_text(show: Open) -> None:
    page = show("hostile")
    aligned(page)
    token(page, "<script").or_(page.locator(".cell").first).first.hover()
    expect(page.locator(".inspector table")).to_be_visible()
    page.wait_for_timeout(300)
    strip = page.locator(".strip")
    for tag in ("script", "img", "style", "a"):
        expect(strip.locator(tag)).to_have_count(0)
    allowed = {"DIV", "ASIDE", "SPAN", "I", "B", "BDI", "BUTTON", "CANVAS", "TABLE", "TR", "TH", "TD", "svg", "path"}
    assert set(strip.evaluate("s => [...s.querySelectorAll('*')].map(e => e.nodeName)")) <= allowed
    expect(strip).to_contain_text("<script>alert(1)</script>")
    expect(strip).to_contain_text("\u2400")  # NUL
    expect(strip).to_contain_text("\u241b[31mred")  # ESC
    expect(strip).to_contain_text("U+202E")
    expect(strip).to_contain_text("\ufffd")  # the lone surrogate


def test_segments_have_tones_notches_labels_and_a_curve(show: Open) -> None:
    page = show("segments")
    line = page.locator(".line").first
    expect(line.locator(".key")).to_have_text(["H", "entropy > 3.2", "relative", "budget", "macro"])
    assert line.locator(".notch").count() > 10
    labels = line.locator(".label").all_text_contents()
    assert labels[:3] == ["1", "2", "3"]
    lefts = [box["x"] for box in (label.bounding_box() for label in line.locator(".label").all())]
    assert all(b - a > 6 for a, b in pairwise(lefts))
    expect(line.locator("path.above")).to_have_count(1)
    expect(line.locator("path.threshold")).to_have_count(1)
    line.locator(".row:not(.line)").first.locator(".cell").nth(4).hover()
    expect(page.locator(".inspector .turned").first).to_be_visible()  # too many rows to stand side by side
    readable(page)


def test_the_colours_of_a_diverging_scale_can_be_read(show: Open) -> None:
    readable(show("diverging"))


def test_rows_with_texts_of_their_own_stand_one_after_another(show: Open) -> None:
    page = show("unaligned")
    expect(page.locator(".head")).to_have_count(2)
    expect(page.locator(".head").last).to_contain_text("not aligned")
    page.locator(".line").last.locator(".cell").first.click()
    expect(page.get_by_text(re.compile(r"^pinned: \d+"))).to_be_visible()
    assert len(pinned_text(page)) == 1
    page.keyboard.press("Control+Home")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_text("pinned: 0")).to_be_visible()


# Scrolls through the whole strip, a step a frame, and counts the elements that stand in the page.
SCROLL = """async e => {
  const steps = 40, end = e.scrollHeight - e.clientHeight;
  let most = 0;
  const frame = () => new Promise(requestAnimationFrame);
  for (let i = 1; i <= steps; i++) {
    await frame();
    e.scrollTop = end * i / steps;
    await frame();            // the scroll event and the strip's own frame
    await frame();
    most = Math.max(most, e.querySelectorAll('*').length);
  }
  return {most, height: e.scrollHeight};
}"""


@pytest.mark.parametrize("case", ["huge", "oneline"])
def test_long_texts_scroll_with_few_elements(show: Open, case: str) -> None:
    page = show(case)
    found = page.locator(".scroller").evaluate(SCROLL)
    assert found["height"] > 20_000
    assert found["most"] < 4_000
    expect(page.locator(".cell").first).to_be_attached()


def test_a_text_without_characters_is_an_empty_strip(show: Open) -> None:
    page = show("empty")
    expect(page.locator(".line")).to_have_count(0)
    page.locator(".scroller").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_text("pinned: None")).to_be_visible()
