"""Pages of the app through Streamlit's own test runner: how they are opened, and what they asked and drew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

ROOT = Path(__file__).parents[2]


def opened(
    models: dict[str, Path], text: str, page: str | None = None, /, a: str = "base", b: str = "sft", **query: Any
) -> AppTest:
    """A page (None: the first) with two tiny models and a typed text, as a deep link opens it."""
    from app.cache import workshop

    workshop.clear()
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)
    for key, value in {"a": str(models[a]), "b": str(models[b]), "source": "Typed", "text": text, **query}.items():
        at.query_params[key] = value
    if page is not None:
        at.switch_page(f"../pages/{page}.py")
    return at.run()


def asked_of(monkeypatch: pytest.MonkeyPatch, *kinds: type) -> list[Any]:
    """The questions of these kinds that are put to models from here on."""
    asked: list[Any] = []
    for kind in kinds:
        run = kind.run  # type: ignore[attr-defined]
        monkeypatch.setattr(kind, "run", lambda self, *rest, run=run: (asked.append(self), run(self, *rest))[1])
    return asked


def kinds(asked: list[Any]) -> list[str]:
    """What kind of question each was."""
    return [type(each).__name__ for each in asked]


def charts(at: AppTest) -> list[Any]:
    """The charts of a page as plotly's JSON."""
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def shown(at: AppTest) -> str:
    """The words of a page."""
    return " ".join(element.value for kind in ("markdown", "caption", "info", "error") for element in at.get(kind))
