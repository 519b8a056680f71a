"""The runs page in a real browser: runs chosen and smoothed; a log that grows is followed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from time import time
from typing import Any

import pytest

from data.run_folder import LOG, MODEL, to_line
from tests.support.browser import needs_chromium
from tests.support.reader import Reader, card, fits, hover, inert
from tests.support.training_logs import line, lines, save_run

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

EVIL = "%{x} <img class=evil src=x onerror='window.hostile=1'> **b** $x$"


@pytest.fixture
def reader(server: str, browser: Any) -> Iterator[Reader]:
    found = Reader(browser, f"{server}/runs")
    yield found
    inert(found.page)
    found.close()


@pytest.fixture
def folder(tmp_path: Path, models: dict[str, Path]) -> Path:
    save_run(tmp_path / "logs" / "one", finished=True)
    save_run(tmp_path / "logs" / "two", lines(260, 1.6), seed=1, base=str(models["base"]))
    save_run(tmp_path / "logs" / EVIL, lines(150, 0.5), base=EVIL, data=EVIL)
    for age, name in ((300, "one"), (900, EVIL)):
        os.utime(tmp_path / "logs" / name / LOG, (time() - age,) * 2)
    return tmp_path / "logs"


def pick(reader: Reader, *names: str) -> None:
    """Choose these runs, and no others."""
    page = reader.page
    page.get_by_role("button", name="Clear all").click()
    reader.settle()
    for name in names:
        page.get_by_role("combobox", name="Runs to compare").click()
        page.get_by_role("option", name=name, exact=True).click()
        page.keyboard.press("Escape")
        reader.settle()


def legend(reader: Reader, name: str = "curves") -> list[str]:
    return [str(text) for text in card(reader.page, name).locator(".legendtext").all_text_contents()]


def test_two_runs_are_chosen_smoothed_and_linked_and_names_stay_text(reader: Reader, folder: Path) -> None:
    page = reader.open(folder=folder, live="false")
    expect(card(page, "summary").get_by_test_id("stMetricValue")).to_have_count(4)
    expect(card(page, "curves").locator(".legendtext")).to_have_count(6)  # all are chosen at first
    reader.until(lambda: any("%{x}" in text for text in legend(reader)))
    hover(page, card(page, "curves").locator(".nsewdrag").first)
    inert(page)
    pick(reader, "two", "one")
    expect(card(page, "curves").locator(".legendtext")).to_have_count(4)
    reader.until(lambda: legend(reader) == ["two, train", "two, validation", "one, train", "one, validation"])
    page.get_by_role("slider", name="Smoothing").press("Home")
    expect(card(page, "curves")).to_contain_text("Not smoothed.")
    page.get_by_role("slider", name="Smoothing").press("End")
    expect(card(page, "curves")).to_contain_text("smoothed by 0.99")
    reader.choose("Over", "tokens")
    expect(card(page, "curves").locator(".xtitle")).to_have_text("labelled tokens seen")
    page.get_by_test_id("stButtonGroup").get_by_text("learning rates", exact=True).click()
    expect(card(page, "curves").locator(".ytitle, .y2title")).to_have_count(2)
    said = ("runs=two&runs=one", "smoothing=0.99", "x=tokens", "learning+rates")
    reader.until(lambda: all(part in page.url for part in said))
    reader.narrow()
    expect(card(page, "curves")).to_contain_text("smoothed by 0.99")
    expect(card(page, "curves").locator(".ytitle, .y2title")).to_have_count(2)
    expect(card(page, "curves").locator(".legendtext").first).to_have_text("two, train")
    fits(reader, "summary", "runs", "curves", "position_curves", "positions", "facts", "checkpoints")


def test_a_line_that_is_appended_is_seen_and_the_final_model_opens_on_another_page(
    reader: Reader, folder: Path, models: dict[str, Path]
) -> None:
    page = reader.open(folder=folder, runs="two", source="Typed", text="the cat sat")
    expect(card(page, "summary")).to_contain_text("260 / 400")
    with (folder / "two" / LOG).open("a") as file:
        file.write(to_line(line(300)) + to_line(line(300, "validation")))
    expect(card(page, "summary")).to_contain_text("300 / 400")
    expect(card(page, "summary")).to_contain_text("two, step 300")
    (folder / "two" / MODEL).symlink_to(models["sft"], target_is_directory=True)
    expect(card(page, "summary")).to_contain_text("two: finished")
    expect(card(page, "checkpoints").get_by_role("combobox", name="Checkpoint")).to_have_value("final model")
    reader.settle()
    card(page, "checkpoints").get_by_role("button", name="Uncertainty").click()
    expect(page.get_by_role("heading", name="Uncertainty")).to_be_visible()
    reader.settle()
    expect(page.get_by_role("combobox", name="Model B")).to_have_value(str(models["sft"].resolve()))
    reader.until(lambda: reader.query().get("b") == str(models["sft"].resolve()))
    assert reader.query()["a"] == str(models["base"])
