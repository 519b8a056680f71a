"""What the tests share. No test asks a hub."""

from __future__ import annotations

import functools
import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores: more threads each are many times slower

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.components.v2 import manifest_scanner
from xdist.scheduler import LoadScopeScheduling

from tests.support.browser import chromium_path, streamlit_server
from tests.support.tiny import save_tiny


class BrowserOnOneWorker(LoadScopeScheduling):
    """Tests of a file stay together, and those of the browser with each other: one worker has server and browser."""

    def _split_scope(self, nodeid: str) -> str:
        return "browser" if nodeid.startswith("tests/browser/") else nodeid.split("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> BrowserOnOneWorker:
    """How `-n` shares the tests among workers."""
    return BrowserOnOneWorker(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, the browser's tests go first, and then long files."""
    if not hasattr(config, "workerinput"):
        return
    files = [item.nodeid.split("::")[0] for item in items]
    sizes = Counter(files)
    order = sorted(
        range(len(items)),
        key=lambda i: (not files[i].startswith("tests/browser/"), -sizes[files[i]], files[i], i),
    )
    items[:] = [items[i] for i in order]


@pytest.fixture(autouse=True)
def own_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that Streamlit's AppTest runs stays behind as `__main__`, which a process started later would run."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session", autouse=True)
def packages_scanned_once() -> Iterator[None]:
    """Each run of an AppTest reads the metadata of all installed packages anew, which takes most of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            manifest_scanner, "scan_component_manifests", functools.cache(manifest_scanner.scan_component_manifests)
        )
        yield


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models on disk: two of one tokenizer, one of another family with BOS, one with a chat template."""
    root = tmp_path_factory.mktemp("models")
    return {
        "base": save_tiny(root / "base", "llama", seed=0),
        "sft": save_tiny(root / "sft", "llama", seed=1, chat=True),
        "other": save_tiny(root / "other", "gemma3_text", seed=2, add_bos=True, kind="sentencepiece"),
    }


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium. Its first context is shared: what one page has loaded, the next one need not compile."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path())
        chromium.new_context()
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The app, with no model on the machine but its own."""
    env = {"MICRO_STEP_CACHE": str(tmp_path_factory.mktemp("cache")), "HF_HUB_OFFLINE": "1"}
    with streamlit_server("tests/support/browser_app.py", env=env) as url:
        yield url


@pytest.fixture
def reader(server: str, browser: Any) -> Iterator[Any]:
    """A reader of the app; whatever the page was given, nothing of it ran or became an element."""
    from tests.support.reader import Reader, inert

    reader = Reader(browser, server)
    yield reader
    inert(reader.page)
    reader.close()  # no script error, no dialog, no other host


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, list[str]]]:
    """Run `micro-step` here; gives its exit code, standard output and the lines of standard error."""
    from tests.support.command import call

    def run(*words: object) -> tuple[int, str, list[str]]:
        code = call(monkeypatch, *words)
        said = capfd.readouterr()
        return code, said.out, said.err.strip().splitlines()

    return run
