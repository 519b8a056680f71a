"""On every page, a change is one step of the browser's Back, which shows what was shown before."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.browser import needs_chromium
from tests.support.reader import Reader, link

expect = pytest.importorskip("playwright.sync_api").expect
pytestmark = [pytest.mark.browser, needs_chromium]

CHANGES = (  # page, group of options, the option of a first visit, another one
    ("", "Lens", "both", "change"),
    ("segmentation", "Models", "both", "A"),
    ("generation", "Film", "Drafting wins", "Your run"),
    ("attention", "Model", "A", "B"),
    ("attribution", "Quantity", "entropy", "surprisal"),
    ("runs", "Over", "step", "tokens"),
    ("evaluation", "Show", "all", "differing"),
)


def test_a_change_on_every_page_is_one_step_of_back(reader: Reader, models: dict[str, Path]) -> None:
    for to, group, first, other in CHANGES:
        page = reader.open(to, **link(models, "the cat sat on the mat"))
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
