"""A reader of the app in a real browser, and what hostile text must never do in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlparse

import pytest
from axe_playwright_python.sync_playwright import Axe

expect = pytest.importorskip("playwright.sync_api").expect
NARROW = 700  # pixels, of a narrow window
PATIENCE = 60_000  # ms, of a machine that does much else
expect.set_options(timeout=PATIENCE)

# Each payload says that it ran by setting window.hostile, and carries the mark "evil" into any element it becomes.
TAGS = (
    "<script>window.hostile=1</script><img class=evil src=x onerror='window.hostile=2'>"
    "<svg class=evil onload='window.hostile=3'><b class=evil>bold</b><a class=evil href='javascript:hostile=4'>l</a>"
    "<iframe class=evil srcdoc='<script>parent.hostile=5</script>'></iframe><style>.evil{display:none}</style>"
)
TAG = "<img class=evil src=x onerror='window.hostile=2'>"
MARKDOWN = (
    "![evil](http://evil.test/x.png) [evil](http://evil.test) **evil** `evil` # evil :material/bug_report: :red[evil]"
)
LATEX = "$\\evil{1}{2}$ $$\\href{http://evil.test}{evil}$$ \\(evil\\)"
ANSI = "\x1b[31mevil\x1b[0m \x1b]0;evil\x07"
CONTROLS = "".join(chr(code) for code in (*range(1, 0x20), 0x7F, 0x85, 0x9B, 0x200B, 0x202E, 0x2028, 0xFEFF))
EMOJI = "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👍🏽 e\u0301\u0323"
RIGHT_TO_LEFT = "שלום עולם مرحبا \u202edlrow\u202c"
# Short enough for a link.
HOSTILE = "\n".join((TAGS, MARKDOWN, f"{LATEX} {ANSI} {EMOJI}", f"a{CONTROLS}b", RIGHT_TO_LEFT, "x" * 600 + TAGS))
INERT = """() => ({
  flag: window.hostile ?? null,
  elements: [...document.querySelectorAll('.evil, [src*="evil"], [href*="evil.test"], [srcdoc], [src="x"], [onerror]')]
    .map(e => e.outerHTML),
  scripts: [...document.scripts].map(s => s.textContent).filter(s => s.includes('hostile')),
  styles: [...document.querySelectorAll('style')].map(s => s.textContent).filter(s => s.includes('.evil')),
  formulas: document.querySelectorAll('.katex').length,
})"""

# Two frames later, nothing runs.
RESTS = """async () => {
  for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
  return document.querySelector('.stApp[data-test-script-state=notRunning] h1') !== null;
}"""


class Reader:
    """One reader, a session of the app; afterwards nothing may have gone wrong or out."""

    def __init__(self, browser: Any, server: str, height: int = 2200) -> None:
        self.server = server
        self.errors: list[str] = []
        self.hosts: set[str | None] = set()
        self.context = browser.contexts[0]
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.page.set_viewport_size({"width": 1300, "height": height})
        self.page.on("pageerror", lambda error: self.errors.append(f"script: {error}"))
        self.page.on("dialog", lambda dialog: (self.errors.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.context.on("request", self._note)  # of the context: a window that the page opens asks no host either

    def _note(self, request: Any) -> None:
        if not request.url.startswith(("blob:", "data:", "about:")):
            self.hosts.add(urlparse(request.url).hostname)

    def open(self, to: str = "", **query: object) -> Any:
        """Follow a link to a page of the app and wait until it is done."""
        self.page.goto(f"{self.server}/{to}?{urlencode(query, doseq=True)}")
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until the script has run and shown something, and does not begin again: a click may be on its way."""
        quiet = 0
        while quiet < 4:
            self.page.locator(".stApp[data-test-script-state=notRunning] h1").wait_for()
            self.page.wait_for_timeout(100)
            quiet = quiet + 1 if self.page.evaluate(RESTS) else 0

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds of the page, and fail if it never does."""
        assert self._comes_to_hold(holds, PATIENCE), "it never held"
        self.settle()

    def insist(self, act: Callable[[], object], holds: Callable[[], bool]) -> None:
        """Do what a person does: once more where it had no effect, as a click into what is drawn anew is lost."""
        for _ in range(3):
            act()
            if self._comes_to_hold(holds, PATIENCE / 3):
                return self.settle()
        raise AssertionError("three times, and no effect")

    def _comes_to_hold(self, holds: Callable[[], bool], patience: float) -> bool:
        end = time.monotonic() + patience / 1000
        while not holds():
            if time.monotonic() > end:
                return False
            self.page.wait_for_timeout(100)
        return True

    def steady(self, element: Any) -> str:
        """What an element says, once it has said the same for a second: a busy machine may still be drawing."""
        said: list[str] = [element.inner_text()]
        while True:
            self.page.wait_for_timeout(1000)
            said.append(element.inner_text())
            if said[-1] == said[-2]:
                return said[-1]
            assert len(said) < PATIENCE / 1000, f"it never holds still: {said[-3:]}"

    def choose(self, group: str, option: str) -> None:
        """Pick an option of a segmented control."""
        self.page.get_by_role("radiogroup", name=group, exact=True).get_by_text(option, exact=True).click()
        self.settle()

    def linked(self, key: str) -> str:
        """What the address says of a choice, once it does."""
        self.until(lambda: key in self.query())
        return self.query()[key]

    def narrow(self) -> None:
        """Follow the link that the page has become, in a narrow window and a dark theme."""
        self.page.set_viewport_size({"width": NARROW, "height": 2000})
        self.page.emulate_media(color_scheme="dark")
        self.page.goto(self.page.url)
        self.settle()

    def query(self) -> dict[str, str]:
        return {key: values[0] for key, values in parse_qs(urlparse(self.page.url).query).items()}

    def download(self, figure: str, kind: str) -> bytes:
        self.settle()
        button = self.page.locator(f".st-key-export_{figure}_{kind} button:visible")
        self.insist(self.page.locator(f".st-key-menu_{figure} button").click, button.is_visible)
        with self.page.expect_download() as pending:
            button.click()
        self.page.keyboard.press("Escape")
        assert pending.value.suggested_filename == f"micro_step-{figure}.{kind}"
        return Path(pending.value.path()).read_bytes()

    def unfold(self, *figures: str) -> None:
        """Open folded cards."""
        for figure in figures:
            self.insist(self.page.locator(f".st-key-open_{figure} summary").click, card(self.page, figure).is_visible)

    def close(self) -> None:
        self.context.remove_listener("request", self._note)
        self.page.close()
        assert self.errors == []
        assert self.hosts <= {"127.0.0.1"}


def card(page: Any, name: str) -> Any:
    return page.locator(f".st-key-card_{name}, .st-key-opening_{name}")


def link(models: dict[str, Path], text: str, /, **more: object) -> dict[str, object]:
    """Two tiny models on a typed text, as a deep link names them."""
    return {"a": models["base"], "b": models["sft"], "source": "Typed", "text": text, **more}


def fits(reader: Reader, *names: str) -> None:
    """The cards stand within a narrow window, and nothing scrolls sideways."""
    for name in names:
        box = card(reader.page, name).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= NARROW, name
    assert reader.page.evaluate("document.querySelector('.stMain').scrollWidth") <= NARROW


def shows_card(page: Any, cell: Any) -> bool:
    """Bring the pointer to a cell anew, as lines that are drawn under a pointer at rest open nothing."""
    page.mouse.move(0, 0)
    cell.hover()
    page.wait_for_timeout(60)
    return bool(page.locator(".strip .inspector table").is_visible())


def looked_at(reader: Reader) -> None:
    """Open everything that shows the text: the cards of tokens, the hover of plots, the row of the table."""
    page = reader.page
    cells = page.locator(".strip .cell")  # of the lines that are drawn, which are others after a scroll
    for cell in (cells.first, cells.nth(min(1, cells.count() - 1)), cells.nth(cells.count() // 2), cells.last):
        cell.scroll_into_view_if_needed()
        reader.until(lambda cell=cell: shows_card(page, cell))
    for name in ("line", "scatter"):
        plot = card(page, name).locator(".plot-container .nsewdrag").first
        plot.scroll_into_view_if_needed()
        hover(page, plot)
    inert(page)


def hover(page: Any, plot: Any) -> None:
    """Move the pointer over a plot."""
    box = plot.bounding_box()
    for share in (0.25, 0.5, 0.9):
        page.mouse.move(box["x"] + box["width"] * share, box["y"] + box["height"] * 0.4)
        page.wait_for_timeout(60)


def strip_text(page: Any, row: int = 0) -> str:
    """The text that a row of the strip shows, in all lines that are drawn, once they are."""
    page.locator(".strip .line .cell").first.wait_for()
    return "".join(
        "".join(line.locator(".row").nth(row).locator(".cell").all_text_contents())
        for line in page.locator(".strip .line").all()
    ).replace("·", " ")


def serious_faults(page: Any) -> list[str]:
    """The serious faults that axe-core finds in a page that has settled: rule, what is wrong, element."""
    found = []
    for violation in Axe().run(page).response["violations"]:
        for node in violation["nodes"] if violation["impact"] in ("serious", "critical") else ():
            why = "; ".join(each["message"] for kind in ("any", "all", "none") for each in node[kind])
            found.append(f"{violation['id']}: {why}: {node['target']} {node['html'][:200]}")
    return found


def inert(page: Any) -> None:
    """Nothing of a payload runs or stands in the page as an element."""
    found = page.evaluate(INERT)
    assert found == {"flag": None, "elements": [], "scripts": [], "styles": [], "formulas": 0}
