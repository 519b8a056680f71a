"""The benchmarks page in a real browser: two runs chosen, stepped through, filtered, exported and made again."""

from __future__ import annotations

import io
import shlex
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.cli import main
from tests.support.browser import needs_chromium
from tests.support.evaluations import save_evaluation
from tests.support.reader import TAGS, Reader, card, inert, strip_text

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

GSM8K = "gsm8k_cot_zeroshot"
EVIL = "%{x} <img class=evil src=x onerror='window.hostile=1'> **b** $x$"


@pytest.fixture
def reader(server: str, browser: Any) -> Iterator[Reader]:
    found = Reader(browser, f"{server}/benchmarks", viewport=(1300, 4200))
    yield found
    inert(found.page)
    found.close()


def select(reader: Reader, label: str, option: str) -> None:
    """Choose an option of a select box."""
    reader.page.get_by_role("combobox", name=label, exact=True).click()
    reader.page.get_by_role("option", name=option, exact=True).click()
    reader.settle()


def made_again(reader: Reader, figure: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A bundle's data, which its command makes again to the byte."""
    with zipfile.ZipFile(io.BytesIO(reader.download(figure, "zip"))) as archive:
        archive.extractall(folder)
    monkeypatch.chdir(folder)
    first = Path("figure.csv").read_bytes()
    Path("figure.csv").unlink()
    words = shlex.split(Path("README.txt").read_text("utf-8").strip().splitlines()[-1])
    assert words[:3] == ["python", "-m", "evals"]
    monkeypatch.setattr(sys, "argv", ["evals", *words[3:]])
    main()
    assert Path("figure.csv").read_bytes() == first
    return first


def test_two_runs_are_chosen_stepped_through_filtered_and_made_again(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_evaluation(tmp_path / "all" / "plain", "tiny-sft", [None])
    save_evaluation(tmp_path / "all" / "micro", "micro-step-tiny", [0.5, 1.1])
    page = reader.open(evaluations=tmp_path / "all")
    expect(card(page, "score_arc_challenge").locator(".legendtext")).to_have_count(2)
    select(reader, "Benchmark", GSM8K)
    expect(card(page, "summary")).to_contain_text("80.0 ± 20.0%")
    select(reader, "A", "micro-step-tiny (0.5)")
    select(reader, "B", "micro-step-tiny (1.1)")
    expect(card(page, "tokens")).to_contain_text("Answers to document 0")
    reader.until(lambda: "The answer is 1000." in strip_text(page))
    page.get_by_role("button", name="Next ▶").first.click()
    expect(card(page, "tokens")).to_contain_text("Answers to document 1")
    reader.choose("Show", "wrong in A, right in B")
    expect(card(page, "tokens")).to_contain_text("Answers to document 2")
    select(reader, "Run", "micro-step-tiny (0.5)")
    expect(page.get_by_text("Invalid since it was cut off before an answer was marked")).to_be_visible()
    expect(page.locator("[data-testid=stCode]").get_by_text("Well, let me think about 5").first).to_be_visible()
    assert b"micro-step-tiny" in made_again(reader, "report", tmp_path / "report", monkeypatch)
    assert b"B," in made_again(reader, "tokens", tmp_path / "tokens", monkeypatch)
    assert b"think about 5" in reader.download("invalid", "csv")
    assert reader.download("documents", "parquet").startswith(b"PAR1")
    reader.until(lambda: all(p in page.url for p in (f"benchmark={GSM8K}", "sample=2", "run_b=micro-step-tiny")))
    told = page.url
    page.goto(told)
    expect(card(page, "tokens")).to_contain_text("Answers to document 2")
    expect(page.get_by_role("combobox", name="B", exact=True)).to_have_value("micro-step-tiny (1.1)")


def test_what_stands_in_files_stays_text_and_a_narrow_window_holds_all(reader: Reader, tmp_path: Path) -> None:
    save_evaluation(tmp_path / EVIL, EVIL, [0.5, 1.1], [TAGS + EVIL, f"The answer is 17. {EVIL}"])
    page = reader.open(evaluations=tmp_path, benchmark=GSM8K)
    expect(card(page, f"score_{GSM8K}").locator(".legendtext").first).to_contain_text("%{x}")
    box = card(page, f"score_{GSM8K}").locator(".nsewdrag").first.bounding_box()
    for share in (0.1, 0.4, 0.8):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.5)
    reader.until(lambda: "<script>" in strip_text(page))
    for title in ("The prompt", "The answers as text"):
        page.get_by_text(title, exact=True).click()
    reader.settle()
    inert(page)
    page.set_viewport_size({"width": 700, "height": 4200})
    reader.until(lambda: page.evaluate("document.scrollingElement.scrollWidth") <= 700)


def test_an_empty_folder_says_what_makes_an_evaluation(reader: Reader, tmp_path: Path) -> None:
    page = reader.open(evaluations=tmp_path)
    expect(page.get_by_text("There is no evaluation in")).to_be_visible()
    expect(page.get_by_text("python -m evals run --model micro-step-tiny")).to_be_visible()
