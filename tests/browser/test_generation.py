"""The generation page in a real browser: an answer streams in and is stopped, tokens answer the pointer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from transformers import AutoModelForCausalLM

from tests.support.browser import needs_chromium
from tests.support.reader import Reader, card, fits, inert
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
    return {"a": models["base"], "b": models["sft"], "source": "Typed", "text": TEXT, "new_tokens": 24, **more}


def test_tau_changes_the_segments_a_token_answers_the_pointer_and_a_pin_is_in_the_link(
    reader: Reader, models: dict[str, Path]
) -> None:
    page = reader.open(**link(models, tau=0, most=3))
    labels = card(page, "answer").locator(".label")
    reader.steady(card(page, "answer"))
    before = labels.count()
    page.get_by_role("slider", name="tau").press("End")
    expect(card(page, "summary")).to_contain_text("token for token")
    reader.until(lambda: labels.count() > before and reader.query()["tau"] == "1.05")
    page.get_by_role("slider", name="tau").press("Home")
    reader.until(lambda: labels.count() == before)
    expect(page.get_by_role("heading", name="Generation")).to_be_visible()
    expect(card(page, "summary").get_by_test_id("stMetricValue")).to_have_count(4)
    expect(card(page, "summary")).to_contain_text("Untrained.")
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
    assert int(reader.query()["token"]) > 0
    reader.narrow()
    expect(strip.locator(".cell.pinned").first).to_be_visible()
    expect(rings).to_have_count(6)
    fits(reader, "summary", "answer", "timeline", "endings", "taus")


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
    page = reader.page
    query = {"a": slow, "b": slow, "source": "Typed", "text": TEXT, "new_tokens": 1500, "tau": 1.05}
    page.goto(f"{reader.server}?{urlencode(query)}")
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
    expect(card(page, "summary")).to_contain_text("the run was stopped")
