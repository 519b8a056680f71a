"""The app in a real browser: what a reader sees, clicks, links to, downloads and stops."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

from tests.support.browser import needs_chromium
from tests.support.pages import made_again
from tests.support.reader import HOSTILE, INERT, TAGS, Reader, card, fits, inert, link, looked_at, strip_text
from tests.support.tiny import tiny_config, tiny_tokenizer

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

TEXT = "the cat sat on the mat, and the dog sat down"
FIGURES = ("strip", "line", "scatter", "distribution", "changes")

Visit = Callable[[], Reader]


@pytest.fixture
def visit(server: str, browser: Any) -> Iterator[Visit]:
    readers: list[Reader] = []

    def start() -> Reader:
        readers.append(Reader(browser, server))
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()


def type_text(reader: Reader, text: str) -> None:
    """Type into the text box; control characters too, as a paste would bring them."""
    box = reader.page.get_by_role("textbox", name="Text", exact=True)
    box.fill(text)
    box.press("Control+Enter")
    reader.settle()


def test_the_first_visit_is_a_worked_example_another_is_chosen_and_a_text_typed(
    reader: Reader, models: dict[str, Path]
) -> None:
    page = reader.open(a=models["base"], b=models["other"])
    expect(page.get_by_role("heading", name="Uncertainty")).to_be_visible()
    reader.until(lambda: strip_text(page).startswith("The harbour empties twice a day."))
    expect(card(page, "strip")).to_contain_text("Mean entropy")
    page.set_viewport_size({"width": 1440, "height": 1000})
    reader.until(lambda: page.locator(".strip").bounding_box()["y"] < 320)  # in the first screen
    expect(card(page, "line")).to_have_count(0)  # folded: neither computed nor sent
    for name in ("line", "next"):
        reader.unfold(name)
        expect(card(page, name).locator(".js-plotly-plot .plot-container")).to_be_visible()
    reader.unfold("changes")
    expect(card(page, "changes").get_by_test_id("stDataFrame")).to_be_visible()

    page.get_by_text("Python", exact=True).click()
    expect(page.locator(".strip .line").first).to_contain_text("def")
    assert reader.linked("example") == "merge"

    type_text(reader, "")
    expect(page.get_by_text("There is no text yet")).to_be_visible()
    type_text(reader, "Where is the cat?")
    expect(page.locator(".strip .line").first).to_contain_text("Where")
    reader.until(lambda: strip_text(page) == "Where is the cat?")
    assert reader.linked("text") == "Where is the cat?"
    assert reader.hosts == {"127.0.0.1"}


def test_a_click_pins_the_token_in_every_figure_and_a_link_and_a_reload_restore_it(
    visit: Visit, models: dict[str, Path]
) -> None:
    reader = visit()
    page = reader.open(**link(models, TEXT, open=["line", "scatter"]))
    reader.choose("Unit", "nats")
    painted = "cells => cells.map(c => c.style.backgroundColor).join()"
    before = page.locator(".strip .cell").evaluate_all(painted)
    page.get_by_role("combobox", name="Score").click()
    page.get_by_role("option", name="surprisal", exact=True).click()
    reader.until(lambda: page.locator(".strip .cell").evaluate_all(painted) != before)
    marks, rings = card(page, "line").locator(".shapelayer path"), card(page, "scatter").locator(".scatterlayer .trace")
    expect(marks).to_have_count(0)
    expect(rings).to_have_count(2)
    page.locator(".strip .cell").filter(has_text=re.compile("^·m$")).first.click()
    expect(page.locator(".strip .cell.pinned")).to_have_text(["·m", "·m"])
    expect(marks).to_have_count(2)  # one in each half of the plot
    expect(rings).to_have_count(3)
    at = reader.linked("at")
    assert TEXT[int(at)] in " m"

    again = visit()
    restored = again.open(**reader.query())
    expect(restored.locator(".strip .cell.pinned")).to_have_text(["·m", "·m"])
    expect(card(restored, "line").locator(".shapelayer path")).to_have_count(2)
    expect(restored.get_by_role("textbox", name="Text", exact=True)).to_have_value(TEXT)
    expect(restored.get_by_role("combobox", name="Model A")).to_have_value(str(models["base"]))
    expect(restored.get_by_role("combobox", name="Model B")).to_have_value(str(models["sft"]))
    expect(restored.get_by_role("radio", name="nats")).to_be_checked()
    expect(card(restored, "strip")).to_contain_text("nats")

    page.reload()
    reader.settle()
    expect(page.locator(".strip .cell.pinned")).to_have_text(["·m", "·m"])
    expect(page.get_by_role("combobox", name="Score")).to_have_value("surprisal")
    expect(page.locator(".strip .legend")).to_contain_text("surprisal")

    page.locator(".strip .scroller").press("Escape")
    expect(page.locator(".strip .cell.pinned")).to_have_count(0)
    expect(marks).to_have_count(0)
    expect(rings).to_have_count(2)
    reader.until(lambda: "at" not in reader.query())


def test_an_alternative_in_the_inspector_rewrites_the_text_and_back_restores_it(
    reader: Reader, models: dict[str, Path]
) -> None:
    page = reader.open(**link(models, "the cat sat on the mat", lens="change", at=9))
    expect(page.locator(".strip .cell.pinned")).to_have_count(1)
    page.locator("button.guess").first.click()
    reader.until(lambda: strip_text(page) not in ("", "the cat sat on the mat"))
    assert strip_text(page).startswith("the cat")
    reader.settle()
    edited = page.get_by_role("textbox", name="Text", exact=True).input_value()
    # the strip shows a mark for a control character
    assert edited.startswith("the cat") and len(edited) == len(strip_text(page))
    assert reader.linked("text") == edited
    page.go_back()
    reader.until(lambda: strip_text(page) == "the cat sat on the mat")


def test_tables_pages_images_and_bundles_are_downloaded(
    reader: Reader, models: dict[str, Path], tmp_path: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"{TEXT} {TAGS}"
    reader.open(**link(models, text, score="surprisal", at=4, open=["line", "scatter", "changes"]))
    csv = pd.read_csv(io.BytesIO(reader.download("line", "csv")))
    parquet = pd.read_parquet(io.BytesIO(reader.download("line", "parquet")))
    assert list(csv.columns) == list(parquet.columns) and len(csv) == len(parquet) > 20
    np.testing.assert_allclose(csv["entropy"], parquet["entropy"])
    assert text.endswith("".join(parquet[parquet["model"] == "B"]["token"]))
    png = reader.download("scatter", "png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.rstrip().endswith(b"IEND\xaeB`\x82")
    told = made_again(reader.download("line", "zip"), tmp_path / "bundle", monkeypatch)
    assert told["view"]["score"] == "surprisal" and told["view"]["pinned"] == 4
    assert (tmp_path / "bundle" / "figure.svg").read_text("utf-8").lstrip().startswith("<svg")
    for figure in ("strip", "changes"):  # a page that holds all it needs, and in which a hostile text does nothing
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


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of many layers and a long context: there is time to stop it."""
    folder = tmp_path_factory.mktemp("slow") / "slow"
    config = tiny_config("llama")
    config.num_hidden_layers, config.max_position_embeddings = 60, 3000
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_long_run_is_stopped_and_run_again(reader: Reader, slow: Path) -> None:
    page = reader.page
    page.goto(f"{reader.server}/?{urlencode({'a': slow, 'b': slow, 'source': 'File'})}")
    content = ("the cat sat on the mat. " * 120).encode()
    page.get_by_role("button", name="More").click()
    page.locator("input[type=file]").set_input_files({"name": "long.txt", "mimeType": "text/plain", "buffer": content})
    expect(page.get_by_test_id("stProgress")).to_contain_text("scoring")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("Stopped. Nothing was kept of this run.")).to_be_visible()
    reader.settle()
    expect(page.get_by_test_id("stProgress")).to_have_count(0)
    expect(page.locator(".strip")).to_have_count(0)
    page.get_by_role("button", name="Run again").dblclick()  # as an impatient reader does
    expect(card(page, "strip")).to_be_visible(timeout=240_000)  # a slow run on a busy machine
    reader.settle()
    expect(page.get_by_text("Stopped.")).to_have_count(0)
    reader.until(lambda: strip_text(page).startswith("the cat sat on the mat."))
    expect(page.get_by_test_id("stAlert")).to_have_count(0)


def test_every_kind_of_hostile_text_is_only_text_and_a_narrow_dark_window_holds_all(
    reader: Reader, models: dict[str, Path]
) -> None:
    page = reader.open(a=models["base"], b=models["other"], source="Typed", open=FIGURES[1:])
    type_text(reader, HOSTILE)
    expect(card(page, "changes").get_by_test_id("stDataFrame")).to_be_visible()
    reader.until(lambda: strip_text(page).startswith(TAGS[:60]))
    looked_at(reader)
    ground(page, "light")

    reader.narrow()
    for name in ("line", "scatter", "distribution"):
        expect(card(page, name).locator(".js-plotly-plot .plot-container")).to_be_visible()
    fits(reader, "strip", *FIGURES)
    ground(page, "dark")
    looked_at(reader)
    uncovered = (
        "e => { const b = e.getBoundingClientRect(); return e.contains(document.elementFromPoint(b.x + 9, b.y + 9)); }"
    )
    page.mouse.wheel(0, -10_000)
    heading = page.get_by_role("heading", name="Uncertainty")
    heading.scroll_into_view_if_needed()
    assert heading.evaluate(uncovered)  # by the bar at the top
    inert(page)


def ground(page: Any, theme: str) -> None:
    """The page, the strip and the figures stand on the ground of a theme, and the figures' ink is seen on it."""
    bright = """e => { while (e && getComputedStyle(e).backgroundColor === 'rgba(0, 0, 0, 0)') e = e.parentElement;
                       return getComputedStyle(e).backgroundColor; }"""
    for element in (page.locator(".stApp"), card(page, "strip"), page.locator(".st-key-card_line .svg-container")):
        parts = [int(x) for x in re.findall(r"\d+", element.evaluate(bright))[:3]]
        assert (sum(parts) > 600) if theme == "light" else (sum(parts) < 150)
    page.wait_for_function(  # the figures are drawn anew once the browser has said which theme it has
        """dark => {
          const ink = document.querySelector('.st-key-card_scatter .xtick text');
          const [r, g, b] = ink ? getComputedStyle(ink).fill.match(/\\d+/g).map(Number) : [];
          return dark ? r + g + b > 350 : r + g + b < 400;
        }""",
        arg=theme == "dark",
    )
