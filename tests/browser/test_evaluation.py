"""The evaluation page in a real browser: two runs chosen, stepped through, filtered and linked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import needs_chromium
from tests.support.evaluations import save_evaluation
from tests.support.reader import TAGS, Reader, card, fits, hover, inert, strip_text

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

GSM8K = "gsm8k_cot_zeroshot"
EVIL = "%{x} <img class=evil src=x onerror='window.hostile=1'> **b** $x$"


@pytest.fixture
def reader(server: str, browser: Any) -> Iterator[Reader]:
    found = Reader(browser, f"{server}/evaluation", height=4200)
    yield found
    inert(found.page)
    found.close()


def select(reader: Reader, label: str, option: str) -> None:
    """Choose an option of a select box."""
    reader.page.get_by_role("combobox", name=label, exact=True).click()
    reader.page.get_by_role("option", name=option, exact=True).click()
    reader.settle()


def test_two_runs_are_chosen_stepped_through_filtered_and_linked(reader: Reader, tmp_path: Path) -> None:
    save_evaluation(tmp_path / "all" / "plain", "tiny-sft", [None])
    save_evaluation(tmp_path / "all" / "micro", "micro-step-tiny", [0.5, 1.1])
    save_evaluation(tmp_path / "all" / EVIL.replace("/", ""), EVIL, [0.5], [TAGS + EVIL, f"The answer is 17. {EVIL}"])
    page = reader.open(evaluations=tmp_path / "all")
    expect(card(page, "score_arc_challenge").locator(".legendtext")).to_have_count(3)
    expect(card(page, "score_arc_challenge")).to_contain_text("%{x}")
    hover(page, card(page, "score_arc_challenge").locator(".nsewdrag").first)
    inert(page)
    select(reader, "Benchmark", GSM8K)
    expect(card(page, "summary")).to_contain_text("80.0 ± 20.0%")
    select(reader, "A", "micro-step-tiny (0.5)")
    select(reader, "B", "micro-step-tiny (1.1)")
    expect(card(page, "tokens")).to_contain_text("Answers to document 0")
    reader.until(lambda: "The answer is 1000." in strip_text(page))
    page.get_by_role("button", name="Next", exact=True).first.click()
    expect(card(page, "tokens")).to_contain_text("Answers to document 1")
    reader.choose("Show", "wrong in A, right in B")
    expect(card(page, "tokens")).to_contain_text("Answers to document 2")
    select(reader, "Run", "micro-step-tiny (0.5)")
    expect(page.get_by_text("Invalid: it was truncated before an answer was marked")).to_be_visible()
    expect(page.locator("[data-testid=stCode]").get_by_text("Well, let me think about 5").first).to_be_visible()
    reader.until(lambda: all(p in page.url for p in (f"benchmark={GSM8K}", "sample=2", "run_b=micro-step-tiny")))
    reader.narrow()
    expect(card(page, "tokens")).to_contain_text("Answers to document 2")
    expect(page.get_by_role("combobox", name="B", exact=True)).to_have_value("micro-step-tiny (1.1)")
    fits(reader, "summary", "tokens")

    page = reader.open(evaluations=tmp_path / "all", benchmark=GSM8K, run_a=f"{EVIL} (0.5)")
    reader.until(lambda: "<script>" in strip_text(page))
    for title in ("The prompt", "The answers as text"):
        page.get_by_text(title, exact=True).click()
    reader.settle()
