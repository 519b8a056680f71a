"""Hostile links, files, names and models in a real browser: nothing of theirs runs, loads or becomes an element."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import LATEX, MARKDOWN, TAGS, Reader, card, inert, looked_at

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]


def upload(reader: Reader, name: str, content: bytes) -> None:
    file = {"name": name, "mimeType": "text/plain", "buffer": content}
    reader.settle()
    if reader.page.locator("input[type=file]").count() == 0:
        reader.page.get_by_role("button", name="More").click()
    reader.page.locator("input[type=file]").set_input_files(file)
    reader.until(lambda: reader.query().get("file") == name)


def says(page: Any, messages: int = 1) -> str:
    """The one message of the page, or the last of so many; no traceback beside it."""
    expect(page.get_by_test_id("stAlert")).to_have_count(messages)
    alert = page.get_by_test_id("stAlert").last
    expect(page.get_by_test_id("stException")).to_have_count(0)
    expect(page.locator(".strip")).to_have_count(0)
    said = str(alert.inner_text()).replace("\u2060", "")  # what keeps a bare address from becoming a link
    assert "Traceback" not in page.locator("body").inner_text() and "\n" not in said.strip()
    return said


def test_a_link_a_file_a_conversation_and_a_model_cannot_speak_through_their_names_and_words(
    reader: Reader, models: dict[str, Path], tmp_path: Path
) -> None:
    evil = f"{TAGS}{MARKDOWN}{LATEX}"
    page = reader.open(a=evil, b=models["base"], source="Typed", text="the cat", unit=evil, score=evil, at=evil)
    assert "there is no folder" in says(page, 2)
    expect(page.get_by_test_id("stAlert").first).to_contain_text("cannot be used here: unit=<script>")
    inert(page)

    folder = tmp_path / "<img class=evil src=x onerror=hostile=1> **evil** $e$ ![evil](x)"
    shutil.copytree(models["sft"], folder)
    told = {"approximations": [TAGS, MARKDOWN], "kind": TAGS, "source": TAGS}
    (folder / "micro_step.json").write_text(json.dumps(told))
    (folder / "README.md").write_text("---\nlicense: <b class=evil>\n---\n")
    page = reader.open(a=folder, b=models["sft"], source="File", chat="true")
    name = "<img class=evil src=x onerror=hostile=1> **evil** ![evil](http:evil.test) $evil$.txt"
    upload(reader, name, b"\xff")
    expect(page.get_by_test_id("stAlert")).to_contain_text("not UTF-8")
    assert name in says(page)
    inert(page)

    turns = [{"role": role, "content": evil} for role in ("system", "user", "assistant")]
    upload(reader, "turns.json", json.dumps({"messages": turns}).encode())
    page.get_by_text("What each model read, template included").click()
    page.get_by_text("By role").click()
    expect(page.locator("code").filter(has_text="<script>window.hostile=1</script>").first).to_be_visible()
    expect(card(page, "strip")).to_contain_text("<img class=evil")
    reader.unfold("line", "scatter")
    expect(card(page, "line").locator(".legend")).to_contain_text("<img·class=evil")
    looked_at(reader)
