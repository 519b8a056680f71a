"""What the tests of the plugin on stand-ins for vLLM read: a tiny model as vLLM opens it."""

from __future__ import annotations

import pytest

from tests.serving.vllm_served import vllm_folder_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def model(folder):
    return vllm_folder_of("micro-step-tiny", folder)
