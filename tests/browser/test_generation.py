"""The generation page in a real browser: an answer streams in and is stopped, tokens answer the pointer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

import micro_step as ms
from tests.support.browser import needs_chromium
from tests.support.reader import TAGS, Reader, card, fits, inert
from tests.support.tiny import tiny_config, tiny_tokenizer

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

TEXT = "the cat sat <img src=x onerror=alert(1)> on the mat"


@pytest.fixture
def reader(server: str, browser: Any) -> Iterator[Reader]:
    found = Reader(browser, f"{server}/generation")
    yield found
    inert(found.page)
    found.close()


def link(models: dict[str, Path], **more: object) -> dict[str, object]:
    own = {"film": "Your run", "source": "Typed", "text": TEXT, "new_tokens": 24}
    return {"a": models["base"], "b": models["sft"], **own, **more}


def run(reader: Reader) -> None:
    reader.page.get_by_role("button", name="Run this text").click()
    reader.settle()


def step(page: Any) -> tuple[str, ...]:
    """The numbers of the film's label: macro step, of how many, tokens, tokens per base pass."""
    return tuple(re.findall(r"[\d.]+", page.locator(".film-label").inner_text()))


def test_the_page_opens_with_a_recording_that_keys_play_and_run_starts_a_run(
    reader: Reader, models: dict[str, Path]
) -> None:
    page = reader.open(**link(models, tau=0, most=3, film="Drafting wins", open=["answer", "steps", "endings"]))
    expect(page.locator(".film .token").first).to_be_visible()
    expect(page.get_by_text("an estimate")).to_be_visible()
    assert page.locator(".film-text").bounding_box()["y"] < 520  # in the first screen
    last = step(page)
    assert last[0] == last[1] == "39" and last[3] == "2.46"
    page.locator(".film-text").focus()
    page.keyboard.press("Home")
    assert step(page)[0] == "1" and page.locator(".film .later").count() > 90
    page.keyboard.press("ArrowRight")
    assert step(page)[0] == "2"
    page.get_by_role("slider", name="tau").press("End")
    assert step(page)[1] == "96" and page.locator(".film .token.micro").count() == 0
    reader.until(lambda: reader.query().get("film_tau") == "1.05")
    page.go_back()
    reader.until(lambda: step(page)[1] == "39")
    page.go_forward()
    reader.until(lambda: step(page)[1] == "96")
    page.get_by_role("slider", name="tau").press("Home")
    assert step(page)[1] == "39"
    page.locator(".film-text").focus()
    page.keyboard.press("Home")
    while not page.locator(".film-text del").count() and step(page)[0] != "39":
        page.keyboard.press("ArrowRight")
    assert page.locator(".film-text del").count() == page.locator(".film-step .out:not(.under)").count() > 0
    before = int(step(page)[0])
    page.get_by_role("button", name="Play").click()
    reader.until(lambda: int(step(page)[0]) > before)
    run(reader)
    expect(page.get_by_text("Untrained.")).to_be_visible()
    reader.until(lambda: page.locator(".film-text .prompt").inner_text() == TEXT)
    written = step(page)
    assert written[0] == written[1] and int(written[2]) == page.locator(".film .token").count()
    assert reader.query()["film"] == "Your run"
    strip = card(page, "answer")
    expect(strip.locator(".label").first).to_have_text("1")
    strip.locator(".cell").nth(1).hover()
    hover = page.locator(".inspector")
    for words in (
        "probability",
        "written by",
        "micro decoder",
        "segment ended",
        "the segment has M tokens",
        "expected",
    ):
        expect(hover).to_contain_text(words)
    reader.insist(strip.locator(".cell").nth(1).click, lambda: "token" in reader.query())
    expect(strip.locator(".cell.pinned").first).to_be_visible()
    rings = card(page, "timeline").locator(".scatterlayer .trace")
    expect(rings).to_have_count(6)
    reader.narrow()
    expect(strip.locator(".cell.pinned").first).to_be_visible()
    fits(reader, "film", "answer", "timeline", "endings")


def test_a_film_is_one_file_that_plays_without_a_network_and_runs_nothing_of_its_text(
    browser: Any, models: dict[str, Path], tmp_path: Path
) -> None:
    made = ms.generate(str(models["sft"]), TAGS[:100], lossless=True, confidence=0.0, max_new_tokens=12)
    made.export(tmp_path / "film.html", "film")
    page, said = browser.contexts[0].new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("request", lambda request: said.append(request.url))
    page.goto(f"file://{tmp_path}/film.html")
    expect(page.locator(".film-label")).to_contain_text("macro step")
    page.locator(".film-text").focus()
    page.keyboard.press("Home")
    assert step(page)[0] == "1"
    assert "<script>window.hostile=1</script>" in page.locator(".film-text").inner_text()
    assert page.evaluate("() => [window.hostile ?? null, document.querySelectorAll('.evil').length]") == [None, 0]
    assert said == [f"file://{tmp_path}/film.html"]
    page.close()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of many layers and a long context: there is time to watch it, and to stop it."""
    folder = tmp_path_factory.mktemp("slow") / "slow"
    config = tiny_config("llama")
    config.num_hidden_layers, config.max_position_embeddings, config.eos_token_id = 60, 3000, None
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_an_answer_streams_in_and_what_was_written_outlives_a_stop(reader: Reader, slow: Path) -> None:
    page = reader.open(**link({"base": slow, "sft": slow}, new_tokens=1500, tau=1.05, open="answer"))
    page.get_by_role("button", name="Run this text").click()
    live = card(page, "live")
    expect(live.locator(".live span").nth(4)).to_be_visible()
    expect(live).to_contain_text(re.compile(r"\d+ macro and \d+ micro steps"))
    expect(page.get_by_test_id("stProgress")).to_contain_text("writing")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("written until then are shown below")).to_be_visible()
    reader.settle()
    expect(live).to_have_count(0)
    expect(page.get_by_test_id("stProgress")).to_have_count(0)
    expect(card(page, "answer").locator(".label").first).to_have_text("1")
    expect(card(page, "film")).to_contain_text("the base has not answered")
