"""What the tests of the trainer read: a tiny model, and data prepared under it."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.prepared import Prepared
from tests.support.tiny import save_tiny
from tests.support.training import make_prepared


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny", "llama", seed=3, chat=True)


@pytest.fixture(scope="session")
def prepared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return make_prepared(tmp_path_factory.mktemp("data") / "made", model)
