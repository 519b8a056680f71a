"""What the tests share. No test asks a hub."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest

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
