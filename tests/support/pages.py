"""Pages of the app through Streamlit's own test runner: how they are opened, and what they asked and drew."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from analysis.figures.figure import Figure
from analysis.provenance import Provenance
from tests.support.command import repeat

ROOT = Path(__file__).parents[2]


def opened(
    models: dict[str, Path],
    text: str,
    page: str | None = None,
    /,
    a: str = "base",
    b: str = "sft",
    fresh: bool = True,
    **query: Any,
) -> AppTest:
    """A page (None: the first) with two tiny models and a typed text, as a deep link opens it.

    Args:
        models: folders by name.
        text: what is typed.
        page: the name of its file.
        a: name of model A.
        b: name of model B.
        fresh: nothing is cached of what earlier readers asked.
        query: more of the link.
    """
    from app.cache import model_pool

    if fresh:
        model_pool.clear()
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)
    for key, value in {"a": str(models[a]), "b": str(models[b]), "source": "Typed", "text": text, **query}.items():
        at.query_params[key] = value
    return at.run() if page is None else turned_to(at, page)


def turned_to(at: AppTest, page: str) -> AppTest:
    """The app on another page, by the name of its file."""
    return at.switch_page(f"../pages/{page}.py").run()


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


def downloads(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], bytes]]:
    """What the Export menus of the pages make, by export_FIGURE_FORMAT; filled as pages run."""
    from app import cards

    made: dict[str, Callable[[], bytes]] = {}
    monkeypatch.setattr("analysis.export.chrome", lambda: None)  # images are made in the browser tests

    def export_menu(drawn: Figure, origin: Provenance) -> None:
        made.update({f"export_{drawn.name}_{kind}": make for kind, make in cards.exports(drawn, origin).items()})

    monkeypatch.setattr(cards, "export_menu", export_menu)
    return made


def strips(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The token strips that pages draw, by key; filled as pages run."""
    import app.token_strip

    drawn: dict[str, Any] = {}
    pack = app.token_strip.pack
    monkeypatch.setattr(
        app.token_strip,
        "pack",
        lambda strip, *, key, **rest: (drawn.__setitem__(key, strip), pack(strip, key=key, **rest))[1],
    )
    return drawn


def made_again(
    bundle: bytes,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    left_out: Callable[[str], bool] = lambda column: False,
) -> dict[str, Any]:
    """Run the command of a bundle, check that it makes the same data, and give the manifest.

    Args:
        bundle: the zip.
        folder: is made, and the bundle unpacked there.
        monkeypatch: of the test.
        rtol: how far numbers may differ, relatively.
        atol: absolutely.
        left_out: columns that differ between runs, such as times.
    """
    folder.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        archive.extractall(folder)
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["command"] in (folder / "README.txt").read_text("utf-8")
    first = pd.read_csv(folder / "figure.csv")
    (folder / "figure.csv").unlink()
    monkeypatch.chdir(folder)
    assert repeat(monkeypatch, manifest["command"]) == 0
    again = pd.read_csv("figure.csv")
    kept = [name for name in first if not left_out(name)]
    pd.testing.assert_frame_equal(first[kept], again[kept], rtol=rtol, atol=atol)
    return manifest
