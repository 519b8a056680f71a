"""Hostile texts, files, names and models in a real browser: nothing of theirs runs, loads or becomes an element."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import INERT, TAGS, Reader, card, inert, strip_text

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

MARKDOWN = (
    "![evil](http://evil.test/x.png) [evil](http://evil.test) **evil** `evil` # evil :material/bug_report: :red[evil]"
)
LATEX = "$\\evil{1}{2}$ $$\\href{http://evil.test}{evil}$$ \\(evil\\)"
ANSI = "\x1b[31mevil\x1b[0m \x1b]0;evil\x07"
CONTROLS = "".join(chr(code) for code in (*range(1, 0x20), 0x7F, 0x85, 0x9B, 0x200B, 0x202E, 0x2028, 0xFEFF))
EMOJI = "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👍🏽 e\u0301\u0323"
RIGHT_TO_LEFT = "שלום עולם مرحبا \u202edlrow\u202c"
LONG = "x" * 1500
TYPED = {
    "tags": TAGS,
    "markdown": MARKDOWN,
    "latex, ansi, emoji": f"{LATEX} {ANSI} {EMOJI}",
    "controls": f"a{CONTROLS}b",
    "right to left": RIGHT_TO_LEFT,
    "one long line": f"{LONG} {TAGS}",
}


def type_text(reader: Reader, text: str) -> None:
    """Type into the text box; control characters too, as a paste would bring them."""
    box = reader.page.get_by_role("textbox", name="Text", exact=True)
    box.fill(text)
    box.press("Control+Enter")
    reader.settle()


def upload(reader: Reader, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "text/plain", "buffer": content}
    reader.steady(reader.page.get_by_test_id("stSidebar"))  # a file given to what is drawn anew is lost
    reader.page.locator("input[type=file]").set_input_files(file)
    expect(reader.page.get_by_test_id("stFileChipName")).to_have_attribute("title", name)
    reader.settle()


def says(page: Any, kind: str = "stAlert") -> str:
    """The one message of the page; no traceback beside it."""
    alert = page.get_by_test_id(kind)
    expect(alert).to_have_count(1)
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.locator(".strip")).to_have_count(0)
    said = str(alert.inner_text()).replace("\u2060", "")  # what keeps a bare address from becoming a link
    assert "Traceback" not in page.locator("body").inner_text() and "\n" not in said.strip()
    return said


def shows_card(page: Any, cell: Any) -> bool:
    """Bring the pointer to a cell anew, as lines that are drawn under a pointer at rest open nothing."""
    page.mouse.move(0, 0)
    cell.hover()
    page.wait_for_timeout(60)
    return bool(page.locator(".strip .card").is_visible())


def looked_at(reader: Reader) -> None:
    """Open everything that shows the text: the cards of tokens, the hover of plots, the row of the table."""
    page = reader.page
    cells = page.locator(".strip .cell")  # of the lines that are drawn, which are others after a scroll
    for cell in (cells.first, cells.nth(min(1, cells.count() - 1)), cells.nth(cells.count() // 2), cells.last):
        cell.scroll_into_view_if_needed()
        reader.until(lambda cell=cell: shows_card(page, cell))
    for name in ("line", "scatter"):
        plot = card(page, name).locator(".plot-container .nsewdrag").first
        plot.scroll_into_view_if_needed()
        box = plot.bounding_box()
        for share in (0.25, 0.5, 0.9):
            page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.4)
            page.wait_for_timeout(60)
    inert(page)


@pytest.mark.parametrize("text", TYPED.values(), ids=TYPED)
def test_a_typed_text_is_only_text_in_strip_card_plot_and_table(
    reader: Reader, models: dict[str, Path], text: str
) -> None:
    page = reader.open(a=models["base"], b=models["other"], source="Typed")
    type_text(reader, text)
    expect(card(page, "changes").get_by_test_id("stDataFrame")).to_be_visible()
    looked_at(reader)
    if text in (TAGS, MARKDOWN):
        reader.until(lambda: strip_text(page).startswith(text[:60]))


def test_a_conversation_of_hostile_turns_is_only_text(reader: Reader, models: dict[str, Path]) -> None:
    page = reader.open(a=models["sft"], b=models["sft"], source="File", chat="true")
    turns = [{"role": role, "content": f"{TAGS}{MARKDOWN}{LATEX}"} for role in ("system", "user", "assistant")]
    upload(reader, "turns.json", json.dumps({"messages": turns}).encode())
    page.get_by_text("What each model read, template included").click()
    page.get_by_text("By role").click()
    expect(page.locator("code").filter(has_text="<script>window.hostile=1</script>").first).to_be_visible()
    looked_at(reader)


@pytest.mark.parametrize("text", [TAGS, MARKDOWN, LATEX], ids=["tags", "markdown", "latex"])
def test_a_link_cannot_speak_through_its_names(reader: Reader, models: dict[str, Path], text: str) -> None:
    page = reader.open(
        a=text, b=models["base"], source="Typed", text="the cat", unit=text, score=text, at=text, chat=text
    )
    assert "there is no folder" in says(page)
    expect(page.get_by_role("button", name="Fetch model A")).to_have_count(0)


def test_a_model_folder_with_a_hostile_name_and_card_is_only_text(
    reader: Reader, models: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "<img class=evil src=x onerror=hostile=1> **evil** $e$ ![evil](x)"
    shutil.copytree(models["base"], folder)
    told = {"approximations": [TAGS, MARKDOWN], "kind": TAGS, "source": TAGS}
    (folder / "micro_step.json").write_text(json.dumps(told))
    (folder / "README.md").write_text("---\nlicense: <b class=evil>\n---\n")
    page = reader.open(a=folder, b=models["base"], source="Typed", text="the cat sat on the mat")
    expect(card(page, "summary")).to_contain_text("<img class=evil")
    expect(card(page, "line").locator(".legend")).to_contain_text("<img·class=evil")
    looked_at(reader)


BROKEN = {
    "latin.txt": ("naïve café".encode("latin-1"), "not UTF-8"),
    "half.txt": ("日本".encode()[:-1], "not UTF-8"),
    "binary.txt": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "not UTF-8"),
    "wide.txt": ("wide".encode("utf-16"), "not UTF-8"),
    "empty.txt": (b"", "empty"),
    "broken.json": (b"{", "no conversation"),
    "deep.json": (b"[" * 100_000, "no conversation"),
    "role.json": (json.dumps({"messages": [{"role": TAGS, "content": "x"}]}).encode(), "unknown role"),
    "<img class=evil src=x onerror=hostile=1>.txt": (b"\xff", "not UTF-8"),
    "**evil** ![evil](http:evil.test) $evil$.txt": (b"\xff", "not UTF-8"),
}


def test_a_file_that_is_no_text_gives_one_message_and_the_next_one_is_read(
    reader: Reader, models: dict[str, Path]
) -> None:
    page = reader.open(a=models["base"], b=models["sft"], source="File")
    assert "There is no text yet" in says(page)
    for name, (content, expected) in BROKEN.items():
        upload(reader, name, content)
        expect(page.get_by_test_id("stAlert")).to_contain_text(expected)
        said = says(page)
        assert expected == "empty" or name in said or expected == "unknown role"
        inert(page)
        page.get_by_role("button", name=re.compile("^Remove")).click()
        expect(page.get_by_test_id("stFileChipName")).to_have_count(0)
    upload(reader, "whole.txt", "\ufeffthe cat\x00 sat".encode())
    expect(page.locator(".strip .line").first).to_contain_text("cat")
    reader.until(lambda: strip_text(page) == "the cat\u2400 sat")


def test_a_model_that_cannot_be_had_gives_one_message_and_the_page_still_works(
    reader: Reader, models: dict[str, Path], tmp_path: Path
) -> None:
    empty, truncated, noise = tmp_path / "empty", tmp_path / "truncated", tmp_path / "noise"
    empty.mkdir()
    weights = "model.safetensors"
    for folder in (truncated, noise):
        shutil.copytree(models["base"], folder)
    whole = (models["base"] / weights).read_bytes()
    (truncated / weights).write_bytes(whole[: len(whole) // 2])
    (noise / "tokenizer.json").write_text("{")
    expected = {
        empty: "no config.json",
        truncated: "truncated",
        noise: "tokenizer",
        models["base"] / "config.json": "is a file",
        "no such model": "there is no folder",
        "x" * 5000: "too long",
        "owner/name": "is not on this machine yet",  # the last one: it may be fetched
    }
    link = {"b": models["base"], "source": "Typed", "text": "the cat sat"}
    for name, said in expected.items():
        page = reader.open(a=name, **link)
        assert said in says(page)
        expect(page.get_by_role("button", name="Fetch model A")).to_have_count(int(name == "owner/name"))
    page.get_by_role("button", name="Fetch model A").click()
    expect(page.get_by_test_id("stAlertContentError")).to_contain_text("the Hugging Face hub is not reachable")
    page.get_by_role("combobox", name="Model A").fill(str(models["sft"]))
    page.get_by_role("combobox", name="Model A").press("Enter")
    expect(card(page, "summary")).to_be_visible()
    expect(page.get_by_test_id("stAlert")).to_have_count(0)


def test_hostile_text_is_inert_in_a_downloaded_page(
    reader: Reader, models: dict[str, Path], browser: Any, tmp_path: Path
) -> None:
    reader.open(a=models["base"], b=models["other"], source="Typed", text=f"{TAGS} {MARKDOWN}")
    for figure in ("strip", "changes"):
        path = tmp_path / f"{figure}.html"
        path.write_bytes(reader.download(figure, "html"))
        context = browser.new_context(offline=True)
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request, asked=asked: asked.append(request.url))
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        page.goto(path.as_uri())
        expect(page.locator(".js-plotly-plot .plot-container")).to_be_visible()
        page.mouse.move(300, 200)
        found = page.evaluate(INERT)
        assert found["flag"] is None and found["elements"] == []
        assert asked == [path.as_uri()]
        context.close()
