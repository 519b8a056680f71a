"""The micro view in a real browser: a click chooses a segment, a card's bundle remakes its data by its own command."""

from __future__ import annotations

import io
import shlex
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.support.browser import needs_chromium
from tests.support.command import call
from tests.support.reader import TAGS, Reader, card, inert

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [pytest.mark.browser, needs_chromium]


def test_a_click_chooses_a_segment_and_a_bundle_makes_its_figure_again(
    server: str, browser: Any, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(browser, f"{server}/attention")
    text = f"the cat sat on the mat and the dog sat on the cat {TAGS}"
    page = reader.open(a=models["base"], b=models["sft"], source="Typed", text=text, view="Micro")
    expect(card(page, "micro_summary").get_by_test_id("stMetricValue")).to_have_count(4)
    expect(card(page, "micro_summary")).to_contain_text("Untrained.")
    expect(card(page, "micro_weights")).to_contain_text("mean over")
    strip = card(page, "micro_segments")
    reader.steady(strip)
    reader.insist(lambda: strip.locator(".cell").nth(3).click(), lambda: "segment" in reader.query())
    expect(card(page, "micro_weights")).to_contain_text(f"segment {reader.query()['segment']} of")
    before = int(reader.query()["segment"])
    page.get_by_role("button", name="Next", exact=True).click()
    reader.until(lambda: int(reader.query()["segment"]) == before + 1)
    expect(strip.locator(".cell.pinned").first).to_be_visible()
    page.reload()
    reader.settle()
    expect(card(page, "micro_weights")).to_contain_text(f"segment {before + 1} of")
    with zipfile.ZipFile(io.BytesIO(reader.download("micro_weights", "zip"))) as archive:
        archive.extractall(tmp_path)
        command = shlex.split(archive.read("README.txt").decode().strip().splitlines()[-1])
    monkeypatch.chdir(tmp_path)
    command[-1] = "again.parquet"
    assert call(monkeypatch, *command[3:]) == 0
    pd.testing.assert_frame_equal(pd.read_parquet("figure.parquet"), pd.read_parquet("again.parquet"))
    reader.choose("Weights of", "mean over the text")
    reader.until(lambda: "segment" not in reader.query())
    inert(page)
    reader.close()
