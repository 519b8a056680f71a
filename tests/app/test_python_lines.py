"""The lines of Python that an Export menu offers give the same data as the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.generation.tables import is_timed
from tests.support import pages

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat, and the dog sat down on the mat"
CASES: dict[str, tuple[str | None, dict[str, Any]]] = {
    "compare": (None, {"score": "surprisal", "at": "5", "open": ["line", "scatter", "distribution", "changes"]}),
    "attribute": ("attribution", {"method": "gradient × input", "group_by": "words", "open": ["units", "curves"]}),
    "attention": ("attention", {"of": "B − A", "level": "segments", "at": "9", "open": ["large_map", "all_heads"]}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_lines_give_the_data_of_the_page(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    from app import cards

    page, query = CASES[case]
    drawn: list[Any] = []
    monkeypatch.setattr(cards, "export_menu", lambda figure, origin: drawn.append((figure, origin)))
    at = pages.opened(models, TEXT, page, **query)
    assert not at.exception and not at.error and len(drawn) >= 3
    for figure, origin in drawn:
        lines = origin.python(figure.name)
        assert f"ms.{case}(" in lines
        names: dict[str, Any] = {}
        exec(lines.replace("result.figure(", "data = result.data("), names)  # noqa: S102 - the lines are what is tested
        kept = [name for name in figure.data if not is_timed(name)]
        pd.testing.assert_frame_equal(names["data"][kept], figure.data[kept], rtol=1e-3, atol=1e-5)
