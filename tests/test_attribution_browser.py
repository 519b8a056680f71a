"""The attribution page in a real browser: a token is explained, another one pinned, units switched, figures remade."""

from __future__ import annotations

import io
import json
import shlex
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.browser import needs_chromium
from tests.command import call
from tests.reader import TAGS, Reader, card, inert

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

TEXT = "the cat sat on the mat, and the dog sat down on the other mat"


def link(models: dict[str, Path], /, **more: object) -> dict[str, object]:
    return {"a": models["base"], "b": models["sft"], "source": "Typed", "text": TEXT, **more}


def remade(reader: Reader, figure: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Make a figure's data again by the command of its bundle; gives the manifest."""
    folder.mkdir()
    with zipfile.ZipFile(io.BytesIO(reader.download(figure, "zip"))) as archive:
        archive.extractall(folder)
    told: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    first = pd.read_csv(folder / "figure.csv")
    (folder / "figure.csv").unlink()
    python, *words = shlex.split(told["command"])
    assert python == "python" and words[:4] == ["-m", "analysis", "attribution-figure", figure]
    monkeypatch.chdir(folder)
    assert call(monkeypatch, *words[2:]) == 0
    pd.testing.assert_frame_equal(first, pd.read_csv(folder / "figure.csv"), rtol=1e-3, atol=1e-5)
    return told


def test_a_token_is_explained_another_pinned_summed_exported_and_remade(
    reader: Reader, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = reader.open("attribution", **link(models, method="gradient × input"))
    summary = card(page, "attribution_summary")
    expect(summary.get_by_test_id("stMetricValue")).to_have_count(4)
    expect(card(page, "attribution")).to_contain_text("depends on")
    expect(page.locator(".strip .cell.pinned").first).to_be_visible()  # the token that is explained
    first = summary.inner_text()

    page.locator(".strip .cell", has_text="dog").first.click()
    reader.until(lambda: reader.query().get("at") == "32")
    expect(card(page, "attribution")).to_contain_text("dog depends on")
    reader.until(lambda: summary.inner_text() != first)

    explained = summary.inner_text()
    reader.choose("Sum over", "words")
    expect(card(page, "units")).to_contain_text("The strongest words")
    assert summary.inner_text() == explained and "rows were read" in explained
    told = remade(reader, "attribution", tmp_path / "attribution", monkeypatch)
    assert told["view"]["unit"] == "words" and told["request"]["quantity"] == "entropy"
    remade(reader, "units", tmp_path / "units", monkeypatch)
    remade(reader, "curves", tmp_path / "curves", monkeypatch)

    page.goto(page.url)
    reader.settle()
    expect(card(page, "attribution")).to_contain_text("dog depends on")
    expect(card(page, "units")).to_contain_text("The strongest words")


def test_two_models_in_a_narrow_dark_window_with_a_hostile_text(
    server: str, browser: Any, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(browser, server, viewport={"width": 700, "height": 2000}, color_scheme="dark")
    more = {"quantity": "KL(A||B)", "method": "ablation"}
    page = reader.open("attribution", **link(models, text=TAGS, **more))
    expect(card(page, "curves")).to_contain_text("Is it faithful?")
    reader.settle()
    for name in ("attribution_summary", "attribution", "units", "curves"):
        box = card(page, name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 700
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 700
    told = remade(reader, "units", tmp_path / "units", monkeypatch)
    assert set(told["models"]) == {"a", "b"}
    inert(page)
    reader.close()
