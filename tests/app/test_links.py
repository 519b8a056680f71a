"""The address of a page names all that it shows, smallest values too: a fresh session that follows it shows that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from tests.support import pages
from tests.support.pages import ROOT

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat, and the dog sat down"


def shown(at: AppTest) -> dict[str, Any]:
    """The values that stand in the address, by name."""
    return {key: at.session_state[key] for key in at.session_state["link_shown"]}


@pytest.mark.parametrize("page", ["uncertainty", "segmentation", "attention", "attribution"])
def test_a_link_names_every_control_at_its_smallest_value(models: dict[str, Path], page: str) -> None:
    at = pages.opened(models, TEXT, page)
    first = shown(at)
    for box in at.number_input:
        if box.key in first and not box.disabled:
            box.set_value(box.min)
    for slider in at.slider:
        if slider.key in first:
            slider.set_value(slider.min)
    for group in at.segmented_control:
        if group.key in first and not group.disabled and group.key != "quantity":
            group.set_value(group.options[0] if isinstance(first[group.key], str) else first[group.key])
    at.run()
    assert not at.exception and not at.error
    fresh = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)
    for key in at.query_params:
        fresh.query_params[key] = at.query_params[key]
    pages.turned_to(fresh, page)
    assert not fresh.exception and shown(fresh) == shown(at)
    assert {key for key, value in shown(at).items() if value not in (None, "", [])} <= set(at.query_params)
    assert {"a", "b", "chat", "text"} <= set(at.query_params)
