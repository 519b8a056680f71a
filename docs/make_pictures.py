"""The pictures of the app in README.md and docs/usage.md, from the app as it is now: `python docs/make_pictures.py http://127.0.0.1:8501`.

The address is that of a running app. Chromium must be on the PATH. The pictures show worked examples whose results are
stored, so that no model runs.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Page, sync_playwright

FOLDER = Path(__file__).parent
SIZE = {"width": 1440, "height": 1000}
FILM = {"x": 300, "y": 0, "width": 1140, "height": 1000}  # without the sidebar
FILM_SIZE = (960, 842)
DONE = ".stApp[data-test-script-state=notRunning] h1"
TRAINED = {"a": "smollm2-135m-instruct", "b": "micro-step-smollm2-135m"}


def main(address: str) -> None:
    """Write four pictures and the film of the lens."""
    path = next(found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name)))
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.set_default_timeout(180_000)
        for name, query in (("uncertainty", TRAINED), ("segmentation", TRAINED), ("generation", {}), ("corpus", {})):
            _open(page, f"{address}/{name if name != 'uncertainty' else ''}?{urlencode(query)}")
            page.screenshot(path=FOLDER / f"{name}.png")
        _film(page, address)
        browser.close()


def _film(page: Page, address: str) -> None:
    """The lens on what changed: both models, then the change, the three largest changes, and another score."""
    _open(page, f"{address}/?{urlencode(TRAINED)}")
    frames = [(_shot(page), 3)]
    page.get_by_role("radiogroup", name="Lens").get_by_text("change", exact=True).click()
    _settle(page)
    frames.append((_shot(page), 3))
    for _ in range(3):
        page.locator(".scroller").first.focus()
        page.keyboard.press("n")
        _settle(page)
        frames.append((_shot(page), 3))
    page.get_by_role("combobox", name="Score").click()
    page.wait_for_timeout(1000)
    frames.append((_shot(page), 1.5))
    page.get_by_role("option", name="surprise beyond expectation").click()
    _settle(page)
    frames.append((_shot(page), 3.5))
    first, *others = [image for image, _ in frames]
    milliseconds = [1000 * seconds for _, seconds in frames]
    first.save(FOLDER / "lens.gif", save_all=True, append_images=others, loop=0, duration=milliseconds)


def _open(page: Page, address: str) -> None:
    page.goto(address)
    _settle(page)


def _settle(page: Page) -> None:
    """Wait until the page has run, and has been done for two seconds."""
    page.wait_for_timeout(500)
    page.locator(DONE).wait_for()
    page.wait_for_timeout(2000)
    page.locator(DONE).wait_for()


def _shot(page: Page) -> Image.Image:
    """A frame of the film, in 256 colours."""
    image = Image.open(io.BytesIO(page.screenshot(clip=FILM))).convert("RGB")
    return image.resize(FILM_SIZE, Image.Resampling.LANCZOS).quantize(256, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main(sys.argv[1])
