"""What the tests share. No test asks a hub."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores: more threads each are many times slower

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import chromium_path
from tests.tiny import save_tiny


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models on disk: two of one tokenizer, one of another family with BOS, one with a chat template."""
    root = tmp_path_factory.mktemp("models")
    return {
        "base": save_tiny(root / "base", "llama", seed=0),
        "sft": save_tiny(root / "sft", "llama", seed=1, chat=True),
        "other": save_tiny(root / "other", "gemma3_text", seed=2, add_bos=True, kind="sentencepiece"),
    }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=chromium_path())
        yield chromium
        chromium.close()
