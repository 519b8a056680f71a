"""The app in a real browser: what a reader sees, clicks, links to, downloads and stops."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pandas as pd
import pytest
from transformers import AutoModelForCausalLM

from tests.support.browser import ROOT, needs_chromium, streamlit_server
from tests.support.reader import Reader, card, strip_text
from tests.support.tiny import tiny_config, tiny_tokenizer

playwright_api = pytest.importorskip("playwright.sync_api")
expect = playwright_api.expect

pytestmark = [pytest.mark.browser, needs_chromium]

TEXT = "the cat sat on the mat, and the dog sat down"
FIGURES = ("strip", "line", "scatter", "distribution", "changes")
COUNTER = """
import os
import analysis.uncertainty.request as request
run = request.Request.run
def counted(self, *rest):
    with open(os.environ["MICRO_STEP_RUNS"], "a") as file:
        file.write("run\\n")
    return run(self, *rest)
request.Request.run = counted
"""


Visit = Callable[..., Reader]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server writes a line into this file for each run of models."""
    path = tmp_path_factory.mktemp("runs") / "runs"
    path.touch()
    return path


@pytest.fixture(scope="module")
def server(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    patch = tmp_path_factory.mktemp("patch")
    (patch / "sitecustomize.py").write_text(COUNTER)  # Python runs it first: the app itself is as it is
    env = {
        "MICRO_STEP_CACHE": str(tmp_path_factory.mktemp("cache")),
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": f"{patch}{os.pathsep}{ROOT}",
        "MICRO_STEP_RUNS": str(runs),
    }
    with streamlit_server("app/main.py", env=env) as url:
        yield url


@pytest.fixture
def visit(server: str, browser: Any) -> Iterator[Visit]:
    readers: list[Reader] = []

    def start(**options: Any) -> Reader:
        readers.append(Reader(browser, server, **options))
        return readers[-1]

    yield start
    for reader in readers:
        reader.close()


@pytest.fixture
def link(models: dict[str, Path]) -> dict[str, object]:
    """Two tiny models on a typed text."""
    return {"a": models["base"], "b": models["sft"], "source": "Typed", "text": TEXT}


def count(runs: Path) -> int:
    return len(runs.read_text().splitlines())


def test_the_first_visit_shows_a_worked_example_and_asks_no_other_host(visit: Visit, models: dict[str, Path]) -> None:
    reader = visit()
    page = reader.open(a=models["base"], b=models["other"])
    expect(page.get_by_role("heading", name="Uncertainty")).to_be_visible()
    reader.until(lambda: strip_text(page).startswith("The harbour empties twice a day."))
    expect(card(page, "summary").get_by_test_id("stMetricValue")).to_have_count(4)
    expect(card(page, "summary")).to_contain_text(re.compile("B is (more|less) sure|No clear difference"))
    for name in ("line", "scatter", "distribution"):
        expect(card(page, name).locator(".js-plotly-plot .plot-container")).to_be_visible()
    expect(card(page, "changes").get_by_test_id("stDataFrame")).to_be_visible()
    assert reader.hosts == {"127.0.0.1"}


def test_another_example_is_chosen_and_stands_in_the_link(visit: Visit, models: dict[str, Path]) -> None:
    reader = visit()
    page = reader.open(a=models["base"], b=models["sft"])
    page.get_by_role("combobox", name="Example").click()
    page.get_by_role("option", name="A Python function with its docstring").click()
    expect(page.locator(".strip .line").first).to_contain_text("def")
    reader.settle()
    assert reader.linked("example") == "A Python function with its docstring"


def test_a_text_is_typed(visit: Visit, models: dict[str, Path]) -> None:
    reader = visit()
    page = reader.open(a=models["base"], b=models["sft"])
    reader.choose("Text", "Typed")
    expect(page.get_by_text("There is no text yet")).to_be_visible()
    box = page.get_by_role("textbox", name="Text", exact=True)
    box.fill("Where is the cat?")
    box.press("Control+Enter")
    expect(page.locator(".strip .line").first).to_contain_text("Where")
    reader.until(lambda: strip_text(page) == "Where is the cat?")
    assert reader.linked("text") == "Where is the cat?"


def test_a_click_pins_the_token_in_every_figure_and_a_link_restores_it(
    visit: Visit, link: dict[str, object], models: dict[str, Path]
) -> None:
    reader = visit()
    page = reader.open(**link, unit="nats")
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
    expect(card(restored, "summary")).to_contain_text("nats")

    page.locator(".strip .scroller").press("Escape")
    expect(page.locator(".strip .cell.pinned")).to_have_count(0)
    expect(marks).to_have_count(0)
    expect(rings).to_have_count(2)
    reader.until(lambda: "at" not in reader.query())


def test_a_reload_keeps_what_was_chosen(visit: Visit, link: dict[str, object]) -> None:
    reader = visit()
    page = reader.open(**link)
    reader.choose("Unit", "nats")
    reader.choose("Score", "surprisal")
    page.locator(".strip .cell").nth(3).click()
    expect(card(page, "line").locator(".shapelayer path")).to_have_count(2)
    pinned = page.locator(".strip .cell.pinned").all_text_contents()
    page.reload()
    reader.settle()
    expect(page.locator(".strip .cell.pinned")).to_have_text(pinned)
    expect(page.get_by_role("radio", name="nats")).to_be_checked()
    expect(page.get_by_role("radio", name="surprisal")).to_be_checked()
    expect(page.locator(".strip .legend")).to_contain_text("surprisal")


def test_colours_units_themes_and_a_second_view_run_no_model(visit: Visit, link: dict[str, object], runs: Path) -> None:
    reader = visit()
    page = reader.open(**link | {"text": f"{TEXT}, once more"})
    reader.settle()
    before = count(runs)
    assert before > 0
    values = card(page, "summary").get_by_test_id("stMetricValue")
    bits = reader.steady(values.first)
    fills = page.locator(".strip .cell").evaluate_all("cells => cells.map(c => c.style.backgroundColor).join()")
    reader.choose("Unit", "nats")
    expect(values.first).to_contain_text("nats")
    nats = pytest.approx(float(bits.split()[0]) * np.log(2), rel=0.01)
    reader.until(lambda: float(values.first.inner_text().split()[0]) == nats)
    reader.choose("Score", "confidence")
    expect(page.locator(".strip .legend")).to_contain_text("confidence")
    painted = "cells => cells.map(c => c.style.backgroundColor).join()"
    reader.until(lambda: page.locator(".strip .cell").evaluate_all(painted) != fills)
    page.locator(".strip .cell").nth(4).click()
    expect(card(page, "line").locator(".shapelayer path")).to_have_count(2)
    other = visit(color_scheme="dark")
    second = other.open(**link | {"text": f"{TEXT}, once more"})
    expect(card(second, "summary").get_by_test_id("stMetricValue").first).to_have_text(bits)
    assert count(runs) == before


def test_the_chat_template_is_applied_where_a_model_has_one(visit: Visit, link: dict[str, object]) -> None:
    reader = visit()
    page = reader.open(**link, answer="It sat.")
    page.get_by_text("Chat template", exact=True).click()
    assert reader.linked("chat") == "true"
    expect(card(page, "summary")).to_contain_text("this model has no chat template")
    page.get_by_text("What each model read, template included").click()
    expect(page.locator("code").filter(has_text="<|im_start|>user")).to_be_visible()
    reader.until(lambda: strip_text(page, 1) == f"{TEXT}¶It sat.")  # content only, though B read a template


def test_own_continuations_are_scored_and_stand_one_after_the_other(visit: Visit, link: dict[str, object]) -> None:
    reader = visit()
    page = reader.open(**link, new_tokens=9)
    reader.choose("Scored text", "own continuations")
    expect(page.locator(".strip .head")).to_have_count(2)
    expect(page.locator(".strip .head").last).to_contain_text("not aligned")
    expect(card(page, "summary")).to_contain_text("9 tokens")
    expect(card(page, "scatter")).to_have_count(0)
    reader.until(lambda: page.locator(".strip .cell.muted").count() > 5)  # the prompt


def test_tables_pages_and_images_are_downloaded(
    visit: Visit, link: dict[str, object], tmp_path: Path, browser: Any
) -> None:
    reader = visit()
    reader.open(**link)
    csv = pd.read_csv(io.BytesIO(reader.download("line", "csv")))
    parquet = pd.read_parquet(io.BytesIO(reader.download("line", "parquet")))
    assert list(csv.columns) == list(parquet.columns) and len(csv) == len(parquet) > 20
    np.testing.assert_allclose(csv["entropy"], parquet["entropy"])
    assert TEXT.endswith("".join(parquet[parquet["model"] == "B"]["token"]))
    png = reader.download("scatter", "png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n") and png.rstrip().endswith(b"IEND\xaeB`\x82")
    path = tmp_path / "figure.html"
    path.write_bytes(reader.download("distribution", "html"))
    context = browser.new_context(offline=True)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    expect(page.locator(".js-plotly-plot .barlayer .trace")).to_have_count(2)
    context.close()
    assert asked == [path.as_uri()]


def test_a_bundle_makes_its_figure_again(visit: Visit, link: dict[str, object], tmp_path: Path) -> None:
    reader = visit()
    page = reader.open(**link, unit="nats", score="surprisal")
    page.locator(".strip .cell").nth(4).click()
    expect(card(page, "line").locator(".shapelayer path")).to_have_count(2)
    with zipfile.ZipFile(io.BytesIO(reader.download("line", "zip"))) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path)
    told = json.loads((tmp_path / "manifest.json").read_text("utf-8"))
    assert told["view"]["score"] == "surprisal" and told["view"]["pinned"] == int(reader.linked("at"))
    assert (tmp_path / "figure.svg").read_text("utf-8").lstrip().startswith("<svg")
    before = (tmp_path / "figure.csv").read_bytes()
    (tmp_path / "figure.csv").unlink()
    python, *words = shlex.split(told["command"])
    assert python == "python" and words[:2] == ["-m", "analysis"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, check=True, capture_output=True)
    first, again = pd.read_csv(io.BytesIO(before)), pd.read_csv(tmp_path / "figure.csv")
    pd.testing.assert_frame_equal(first, again, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of many layers and a long context: there is time to stop it."""
    folder = tmp_path_factory.mktemp("slow") / "slow"
    config = tiny_config("llama")
    config.num_hidden_layers, config.max_position_embeddings = 60, 3000
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_a_long_run_is_stopped_and_run_again(visit: Visit, slow: Path, runs: Path) -> None:
    reader = visit()
    page = reader.page
    page.goto(f"{reader.server}/?{urlencode({'a': slow, 'b': slow, 'source': 'File'})}")
    content = ("the cat sat on the mat. " * 120).encode()
    page.locator("input[type=file]").set_input_files({"name": "long.txt", "mimeType": "text/plain", "buffer": content})
    expect(page.get_by_test_id("stProgress")).to_contain_text("scoring")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(page.get_by_text("Stopped. Nothing was kept of this run.")).to_be_visible()
    reader.settle()
    expect(page.get_by_test_id("stProgress")).to_have_count(0)
    expect(page.locator(".strip")).to_have_count(0)
    before = count(runs)
    page.get_by_role("button", name="Run again").dblclick()  # as an impatient reader does
    expect(card(page, "summary")).to_be_visible(timeout=240_000)  # a slow run on a busy machine
    reader.settle()
    expect(page.get_by_text("Stopped.")).to_have_count(0)
    reader.until(lambda: strip_text(page).startswith("the cat sat on the mat."))
    assert before < count(runs) <= before + 2
    expect(page.get_by_test_id("stAlert")).to_have_count(0)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_light_and_dark_hold_for_the_page_the_strip_and_the_figures(
    visit: Visit, link: dict[str, object], theme: str
) -> None:
    page = visit(color_scheme=theme).open(**link)
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


def test_a_narrow_window_shows_everything_without_sideways_scrolling(visit: Visit, link: dict[str, object]) -> None:
    page = visit(viewport=(700, 1200)).open(**link)
    for name in ("summary", *FIGURES):
        box = card(page, name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 700
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 700
    uncovered = (
        "e => { const b = e.getBoundingClientRect(); return e.contains(document.elementFromPoint(b.x + 9, b.y + 9)); }"
    )
    assert page.get_by_role("heading", name="Uncertainty").evaluate(uncovered)  # by the bar at the top
