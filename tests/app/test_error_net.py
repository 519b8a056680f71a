"""The outer net of the app: a planted fault in a page, fragment, callback or download is one sentence, and logged."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import streamlit as st

from app import error_net
from tests.support import pages
from tests.support.pages import ROOT

UNFORESEEN = "something unexpected went wrong in the app"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICRO_STEP_CACHE", str(tmp_path))
    return tmp_path


def broken(*_: Any, **__: Any) -> Any:
    raise KeyError("planted")


def errors(at: Any) -> list[str]:
    assert not at.exception  # what Streamlit itself shows: "the original error message is redacted"
    return [error.value.replace("\\", "") for error in at.error]


@pytest.mark.parametrize(
    "planted",
    [
        "analysis.uncertainty.request.ComparisonQuery.run",
        "app.uncertainty.cards.comparison_strip",
        "app.sidebar.sidebar",
    ],
    ids=["page", "fragment", "sidebar"],
)
def test_a_fault_in_a_page_is_one_sentence(
    planted: str, models: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to be "This app has encountered an error. The original error message is redacted"."""
    monkeypatch.setattr(planted, broken)
    (told,) = errors(pages.opened(models, "the cat sat"))
    (log,) = (cache / "log").iterdir()
    assert UNFORESEEN in told and "KeyError: 'planted'" in told and log.name in told
    assert "in broken" in log.read_text("utf-8")


def test_a_fault_in_a_callback_is_told_in_the_run_that_follows(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = pages.opened(models, "the cat sat", "segmentation", open=["strategies"])
    assert not errors(at)
    monkeypatch.setattr("app.segmentation.strategies.entries", broken)
    at.button(key="add_strategy").click().run()
    assert UNFORESEEN in errors(at)[0]
    monkeypatch.undo()
    assert not errors(at.run())


def test_a_download_that_fails_is_told_later() -> None:
    later = st.session_state.setdefault("pending_errors", [])
    later.clear()
    with pytest.raises(KeyError):
        error_net.download(broken)()
    assert (
        later[0].startswith("The file could not be made: something unexpected")
        and error_net.download(lambda: b"x")() == b"x"
    )
    later.clear()


def test_streamlits_own_signals_pass() -> None:
    from streamlit.runtime.scriptrunner import StopException

    with pytest.raises(StopException), error_net.caught():
        raise StopException


def test_every_callback_and_fragment_is_in_the_net() -> None:
    for path in (*(ROOT / "app").rglob("*.py"), *(ROOT / "pages").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.keyword) and node.arg in ("on_click", "on_change", "on_select", "on_pin_change"):
                text = ast.unparse(node.value)
                assert text.startswith("safely(") or isinstance(node.value, ast.Constant), f"{path}: {text}"
            if isinstance(node, ast.Attribute) and node.attr == "fragment":
                assert path.name == "error_net.py", f"{path} has a fragment of its own: use app.error_net"
