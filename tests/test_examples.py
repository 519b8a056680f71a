"""The notebooks in examples/ are those of their scripts and run, one is looked at; the example of the README runs."""

import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from examples.build import SCRIPTS, execute, notebook
from tests.support.browser import needs_chromium

expect = pytest.importorskip("playwright.sync_api").expect

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
LARGEST = 300_000  # bytes of a stored notebook
STRICT = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"  # no eval, nothing from elsewhere
FIRST, *OTHERS = SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_stored_notebook_is_that_of_its_script(script):
    stored = nbformat.read(script.with_suffix(".ipynb"), as_version=4)
    assert [(cell.cell_type, cell.source) for cell in stored.cells] == [
        (cell.cell_type, cell.source) for cell in notebook(script).cells
    ], "python examples/build.py reproduces it"
    assert any(cell.get("outputs") for cell in stored.cells)
    assert script.with_suffix(".ipynb").stat().st_size < LARGEST


@pytest.mark.parametrize("script", OTHERS, ids=lambda script: script.stem)
def test_a_script_runs(script):
    names = {}
    for cell in notebook(script).cells:
        if cell.cell_type == "code":
            exec(compile(cell.source, str(script), "exec"), names)  # noqa: S102 - our own code


@pytest.fixture(scope="module")
def outputs():
    """What the first notebook shows in a kernel, as HTML."""
    cells = execute(notebook(FIRST)).cells
    return [
        output.data["text/html"]
        for cell in cells
        for output in cell.get("outputs", ())
        if "text/html" in output.get("data", {})
    ]


@pytest.mark.browser
@needs_chromium
def test_a_notebook_shows_the_strip_of_the_app(outputs, browser, tmp_path):
    page_file = tmp_path / "notebook.html"
    head = f"<!DOCTYPE html><meta charset='utf-8'><meta http-equiv='Content-Security-Policy' content=\"{STRICT}\">"
    page_file.write_text(f"{head}<body>{''.join(outputs)}</body>", "utf-8")
    page, wrong = browser.contexts[0].new_page(), []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda request: wrong.append(request.url) if request.url.startswith("http") else None)
    page.emulate_media(color_scheme="dark")
    page.goto(page_file.as_uri())
    strip, changed = page.locator(".strip").first, page.locator(".strip").nth(1)
    expect(changed.locator(".what")).to_contain_text("“·named” pinned")  # as asked from Python
    strip.locator(".cell").filter(has_text=re.compile("^·time$")).first.click()
    page.mouse.move(0, 0)
    expect(strip.locator(".what")).to_contain_text("“·time” pinned")
    said = strip.locator(".inspector").inner_text()
    assert "A expected" in said and "B expected" in said and "entropy, bits" in said
    assert page.locator(".strip .cell.pinned").count() == 2 + 1  # A and B here, what was pinned there
    assert page.evaluate("microStepScripts.size") == 1  # unpacked once
    page.keyboard.press("ArrowRight")
    expect(strip.locator(".what")).to_contain_text("“·there” pinned")
    expect(strip.locator(".cell").nth(1)).to_have_css("color", "rgb(255, 255, 255)")
    page.emulate_media(color_scheme="light")
    expect(strip.locator(".cell").nth(1)).to_have_css("color", "rgb(0, 0, 0)")
    page.close()
    assert not wrong


def test_without_scripts_a_notebook_shows_a_picture(outputs):
    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.tags, self.text, self.inside = Counter(), "", ""

        def handle_starttag(self, tag, attrs):
            self.tags[tag] += 1
            self.inside = tag

        def handle_data(self, data):
            self.text += data if self.inside != "script" else ""

    strips = [shown for shown in outputs if "data-micro-step" in shown]
    assert len(strips) == 2
    for shown in strips:
        reader = Reader()
        reader.feed(shown)
        assert reader.tags["script"] == 1 and reader.tags["span"] > 20
        assert "Once·upon·a·time" in reader.text


def test_readme_example_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own code
    assert "B is less" in capsys.readouterr().out
