"""On every page, a change is one step of the browser's Back, which shows what was shown before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import Reader, link

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [pytest.mark.browser, needs_chromium]

CHANGES = (  # page, group of options, the option of a first visit, another one
    ("Uncertainty", "Lens", "both", "change"),
    ("Segmentation", "Models", "both", "A"),
    ("Generation", "Film", "Drafting wins", "Your run"),
    ("Attention", "Model", "A", "B"),
    ("Attribution", "Quantity", "entropy", "surprisal"),
    ("Depth", "Lens", "both", "A"),
    ("Runs", "Over", "step", "tokens"),
    ("Evaluation", "Show", "all", "differing"),
)


def test_a_change_on_every_page_is_one_step_of_back(reader: Reader, models: dict[str, Path]) -> None:
    page = reader.open(**link(models, "the cat sat on the mat"))
    for to, group, first, other in CHANGES:
        if to != "Uncertainty":
            page.get_by_role("link", name=to, exact=True).click()
            reader.settle()
        options = page.get_by_role("radiogroup", name=group, exact=True)
        now, then = (options.get_by_role("radio", name=name, exact=True) for name in (first, other))
        expect(now).to_have_attribute("aria-checked", "true")
        before, steps = page.url, page.evaluate("history.length")
        then.click()
        expect(then).to_have_attribute("aria-checked", "true")
        page.wait_for_url(lambda url, before=before: url != before)
        reader.settle()
        assert page.evaluate("history.length") == steps + 1, to
        page.go_back()
        expect(now).to_have_attribute("aria-checked", "true")
        assert page.url == before, to
